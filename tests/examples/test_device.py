"""examples/device: both programs are built, and give what Python gives. `make test-arm` runs the one for TVM on ARM."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from shutil import which
from typing import Any, NamedTuple

import numpy.typing as npt
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
import hashcompile_runtime as hcrt
from hashcompile.core.signature import Batch
from tests.models import build

tvm = pytest.importorskip("tvm", reason="TVM is not installed: pip install 'hashcompile[tvm]'")

from hashcompile.lower.cross_archive import cmake  # noqa: E402 - needs TVM
from hashcompile.lower.tvm_library import runner  # noqa: E402

EXAMPLE = Path(__file__).parents[2] / "examples" / "device"
Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with run_tvm and run_onnx, against the wheels' libraries."""
    if not which("c++"):
        pytest.skip("there is no C++ compiler")
    folder = tmp_path_factory.mktemp("device")
    release = folder / "onnxruntime"
    for name in ("include", "lib"):
        (release / name).mkdir(parents=True)
    (release / "include" / "onnxruntime_c_api.h").symlink_to(Path(__file__).with_name("onnxruntime_c_api.h"))
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (release / "lib" / name).symlink_to(library)
    roots = [f"-DTVM_ROOT={Path(tvm.__file__).parents[1]}", f"-DONNXRUNTIME_ROOT={release}"]
    for command in (["-S", str(EXAMPLE), "-B", str(folder), *roots], ["--build", str(folder)]):
        done = subprocess.run([cmake(), *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Tagger(nn.Module):
    """ids (B, S) int64, mask (B, S) bool -> scores (B, S, 7) float32, tags (B, S) int64, known (B, S) bool."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(50, 32), nn.Linear(32, 7)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores = self.head(self.embed(ids) * mask.unsqueeze(-1))
        tags = scores.argmax(-1)
        return scores, tags, tags > 2


class Case(NamedTuple):
    compiled: hc.CompiledModel
    given: Batch


@pytest.fixture(scope="module", params=["cnn", "tagger"])
def case(request: pytest.FixtureRequest) -> Case:
    if request.param == "cnn":
        model, inputs = build("cnn")
        return Case(hc.compile(model, inputs(2)), inputs(3))
    ids, mask = torch.arange(30).reshape(5, 6), torch.arange(30).reshape(5, 6) % 4 > 0
    return Case(hc.compile(Tagger(), (ids[:2], mask[:2])), (ids[2:], mask[2:]))


def test_the_dev_extra_brings_cmake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make test` needs none of the machine's."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert subprocess.run([cmake(), "--version"], capture_output=True).returncode == 0


def call(program: Path, *arguments: object, given: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(program), *map(str, arguments)], input=given, capture_output=True)


def told(values: Sequence[Array]) -> list[str]:
    """As the programs are told, and tell, what a tensor is."""
    return [f"{each.dtype}:{'x'.join(map(str, each.shape))}" for each in values]


def check(program: Path, *arguments: object, given: Sequence[Array], wanted: Sequence[Array]) -> None:
    """It writes all outputs, bit for bit, and says what they are."""
    data = b"".join(each.tobytes() for each in given)
    done = call(program, *arguments, *told(given), given=data)
    assert done.returncode == 0, done.stderr
    assert done.stderr.decode().split() == told(wanted)
    assert done.stdout == b"".join(each.tobytes() for each in wanted)


def test_run_tvm(programs: Path, case: Case, tmp_path: Path) -> None:
    case.compiled.export_tvm(tmp_path / "m.so")
    wanted = [each.numpy() for each in runner(tmp_path / "m.so")(case.given)]
    given = [each.numpy() for each in case.given]
    check(programs / "run_tvm", tmp_path / "m.so", given=given, wanted=wanted)


def test_run_onnx(programs: Path, case: Case, tmp_path: Path) -> None:
    case.compiled.export_onnx(tmp_path / "m.onnx")
    given = [each.numpy() for each in case.given]
    session = hcrt.session(tmp_path / "m.onnx")
    names = [each.name for each in session.get_inputs()]
    wanted = session.run(None, dict(zip(names, given, strict=True)))
    check(programs / "run_onnx", tmp_path / "m.onnx", hcrt.library_path(), given=given, wanted=wanted)


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return self.fc(x), x.shape[0]


def test_sizes_are_outputs(programs: Path, tmp_path: Path) -> None:
    """As ONNX has them: int64, without dims. The files lie in the current folder and have no path."""
    compiled = hc.compile(Counted(), (torch.ones(2, 16),), dynamic_batch=True)
    compiled.export_tvm(tmp_path / "m.so")
    compiled.export_onnx(tmp_path / "m.onnx")
    for command in (["run_tvm", "m.so"], ["run_onnx", "m.onnx", hcrt.library_path()]):
        done = subprocess.run(
            [programs / command[0], *command[1:], "float32:5x16"],
            input=bytes(4 * 5 * 16),
            cwd=tmp_path,
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.decode().split() == ["float32:5x16", "int64:"]
        assert done.stdout[-8:] == (5).to_bytes(8, "little")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is full, of Linux")
def test_a_full_disk_is_an_error(programs: Path, tmp_path: Path) -> None:
    hc.compile(nn.Linear(16, 16), (torch.ones(2, 16),)).export_tvm(tmp_path / "m.so")
    command = [programs / "run_tvm", tmp_path / "m.so", "float32:2x16"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, input=bytes(4 * 2 * 16), stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1 and b"cannot write the output" in done.stderr


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).double()


def test_types_are_checked(programs: Path, tmp_path: Path) -> None:
    """Of inputs by the model, of outputs by the program."""
    compiled = hc.compile(Doubled(), (torch.ones(2, 16),))
    compiled.export_tvm(tmp_path / "m.so")
    compiled.export_onnx(tmp_path / "m.onnx")
    for tvms, command in (
        (True, (programs / "run_tvm", tmp_path / "m.so")),
        (False, (programs / "run_onnx", tmp_path / "m.onnx", hcrt.library_path())),
    ):
        for arguments, said in (
            (["int32:2x16"], b"float"),
            (["float32:2x16", "float32:2x16"], b"expects 1 arg" if tvms else b"inputs: 1"),
            (["float32:2x16"], b"'float64' is none" if tvms else b"number 11"),
        ):
            done = call(*command, *arguments, given=bytes(4 * 2 * 16 * len(arguments)))
            assert done.returncode == 1 and said in done.stderr and not done.stdout, done.stderr


@pytest.mark.parametrize(
    ("program", "arguments", "said"),
    [
        ("run_tvm", (), b"usage"),
        ("run_tvm", ("--help",), b"usage"),
        ("run_tvm", ("none.so", "float32:2"), b"none.so"),
        ("run_tvm", ("none.so", "float32:1x0"), b"a size is"),
        ("run_tvm", ("none.so", "float32:"), b"a size is"),
        ("run_tvm", ("none.so", "float32:1,2"), b"a size is"),
        ("run_tvm", ("none.so", "float32"), b"no sizes"),
        ("run_tvm", ("none.so", "2"), b"'2' is none"),
        ("run_tvm", ("none.so", "float64:2"), b"'float64' is none"),
        ("run_tvm", ("none.so", "float32:3"), b"ends before"),
        ("run_tvm", ("none.so", "int64:2"), b"ends before"),
        ("run_tvm", ("none.so", "float32:1"), b"goes on behind"),
        ("run_onnx", ("none.onnx", "none.so", "float32:1"), b"goes on behind"),
        ("run_tvm", ("none.so", f"float32:{2**31 - 1}x{2**31 - 1}x{2**31 - 1}"), b"no memory"),
        ("run_onnx", (), b"usage"),
        ("run_onnx", ("none.onnx", "none.so", "float32:2"), b"none.so"),
        ("run_onnx", ("none.onnx", hcrt.library_path(), "float32:2"), b"none.onnx"),
    ],
)
def test_what_is_wrong_is_said(
    programs: Path, program: str, arguments: tuple[object, ...], said: bytes
) -> None:
    done = call(programs / program, *arguments, given=bytes(8))
    assert done.returncode == 1 and said in done.stderr and not done.stdout
