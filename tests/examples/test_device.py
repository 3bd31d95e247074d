"""examples/device: both programs are built, and give what Python gives. `make test-arm` runs the one for TVM on ARM."""

from __future__ import annotations

import subprocess
from pathlib import Path
from shutil import which

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

import hashcompile as hc
import hashcompile_runtime as hcrt
from tests.models import build

tvm = pytest.importorskip("tvm", reason="TVM is not installed: pip install 'hashcompile[tvm]'")

from hashcompile.lower.cross_archive import cmake  # noqa: E402 - needs TVM
from hashcompile.lower.tvm_library import runner  # noqa: E402

EXAMPLE = Path(__file__).parents[2] / "examples" / "device"
Floats = npt.NDArray[np.float32]


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


@pytest.fixture(scope="module")
def compiled() -> hc.CompiledModel:
    model, inputs = build("cnn")
    return hc.compile(model, inputs(2))


def test_the_dev_extra_brings_cmake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make test` needs none of the machine's."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert subprocess.run([cmake(), "--version"], capture_output=True).returncode == 0


def call(program: Path, *arguments: object, given: Floats) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(program), *map(str, arguments)], input=given.tobytes(), capture_output=True)


def test_run_tvm(programs: Path, compiled: hc.CompiledModel, tmp_path: Path) -> None:
    compiled.export_tvm(tmp_path / "m.so")
    (given,) = build("cnn")[1](3)
    (wanted,) = runner(tmp_path / "m.so")((given,))
    done = call(programs / "run_tvm", tmp_path / "m.so", *given.shape, given=given.numpy())
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.frombuffer(done.stdout, np.float32), wanted.numpy().ravel())


def test_run_onnx(programs: Path, compiled: hc.CompiledModel, tmp_path: Path) -> None:
    compiled.export_onnx(tmp_path / "m.onnx")
    (given,) = build("cnn")[1](3)
    session = hcrt.session(tmp_path / "m.onnx")
    (wanted,) = session.run(None, {session.get_inputs()[0].name: given.numpy()})
    program, library = programs / "run_onnx", hcrt.library_path()
    done = call(program, tmp_path / "m.onnx", library, *given.shape, given=given.numpy())
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.frombuffer(done.stdout, np.float32), wanted.ravel())


@pytest.mark.parametrize(
    ("program", "arguments", "said"),
    [
        ("run_tvm", (), b"usage"),
        ("run_tvm", ("none.so", 2), b"none.so"),
        ("run_tvm", ("none.so", 0), b"a size is"),
        ("run_tvm", ("none.so", 3), b"ends before"),
        ("run_tvm", ("none.so", *[2**31 - 1] * 3), b"no memory"),
        ("run_onnx", (), b"usage"),
        ("run_onnx", ("none.onnx", "none.so", 2), b"none.so"),
        ("run_onnx", ("none.onnx", hcrt.library_path(), 2), b"none.onnx"),
    ],
)
def test_what_is_wrong_is_said(
    programs: Path, program: str, arguments: tuple[object, ...], said: bytes
) -> None:
    done = call(programs / program, *arguments, given=np.zeros(2, np.float32))
    assert done.returncode == 1 and said in done.stderr and not done.stdout
