"""Measuring: every number is there and in its unit, names are checked, and a bad file is one clear error."""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from hashcompile import bench as benching
from hashcompile import race
from hashcompile.bench import Contender, Settings, bench, contenders
from hashcompile.bench_inputs import Sizes
from hashcompile.core.console import render
from hashcompile.core.errors import ArtifactError, ConfigError
from hashcompile.core.interface import Input
from hashcompile.model_file import ModelFile, read, read_onnx

SIZE = 128  # of the square matrices in the `write_mlp` fixture
WriteMlp = Callable[..., Path]
QUICK = {"runs": 20, "threads": 1}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, write_mlp: WriteMlp) -> Path:
    return write_mlp(tmp_path_factory.mktemp("bench") / "small.onnx")


def test_every_number_is_measured(small: Path, tmp_path: Path, write_mlp: WriteMlp) -> None:
    deep = write_mlp(tmp_path / "deep.onnx", layers=200)
    first, second = bench(contenders([small, deep]), Settings(sizes=Sizes(batch=3), **QUICK))
    assert [first.file, second.file] == [str(small), str(deep)]
    assert first.ratio == 1
    assert second.ratio > 2, "two hundred matrix products take longer than two"
    for row in (first, second):
        assert row.runtime == "onnxruntime"
        assert row.file_bytes == Path(row.file).stat().st_size
        assert row.runs == 20
        assert row.inputs == {"x": [3, SIZE]}
        assert 0 < row.p50_ms <= row.p90_ms <= row.p99_ms < row.load_ms + 1000
        assert row.load_ms > 0
        assert row.first_ms > 0
        assert 10**4 < row.resident_bytes < 10**9
    text = render(benching.as_table([first, second]))
    assert "small.onnx" in text
    assert "1.00" in text
    assert f"x 3x{SIZE}" in text, "what was measured"
    assert second.ratio == second.p50_ms / first.p50_ms
    for row in (first, second):
        assert f" {row.p50_ms:.4f} " in text, "the ratio is of the numbers shown"
        assert f" {row.ratio:.2f}" in text
    assert "below 1 is faster than the first" in text


def test_external_data_counts(tmp_path: Path, write_mlp: WriteMlp) -> None:
    path = write_mlp(tmp_path / "thin.onnx", external=True)
    (row,) = bench(contenders([path]), Settings(**QUICK))
    assert row.file_bytes == path.stat().st_size + (tmp_path / "weights.bin").stat().st_size
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ArtifactError, match=r"weights\.bin, which is not beside it"):
        bench(contenders([path]), Settings(**QUICK))


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.INT32], ids=["double", "int32"])
def test_inputs_are_made_up_for_any_type(tmp_path: Path, kind: int, write_mlp: WriteMlp) -> None:
    (row,) = bench(contenders([write_mlp(tmp_path / "typed.onnx", kind=kind)]), Settings(**QUICK))
    assert row.p50_ms > 0


def test_shapes_come_from_dims_then_batch_then_one(small: Path) -> None:
    for sizes, rows in ((Sizes(), 1), (Sizes(dims={"batch": 5}, batch=2), 5)):
        assert bench(contenders([small]), Settings(sizes=sizes, **QUICK))[0].inputs == {"x": [rows, SIZE]}
    (row,) = bench(contenders([small]), Settings(sizes=Sizes(shapes={"x": (7, SIZE)}), **QUICK))
    assert row.inputs == {"x": [7, SIZE]}


def test_own_inputs(small: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.zeros((9, SIZE), np.float32))
    (row,) = bench(contenders([small]), Settings(sizes=Sizes(inputs=tmp_path / "in.npz"), **QUICK))
    assert row.inputs == {"x": [9, SIZE]}
    np.savez(tmp_path / "other.npz", y=np.zeros(1))
    with pytest.raises(ArtifactError, match=r"^\S*other\.npz has no array named x"):
        bench(contenders([small]), Settings(sizes=Sizes(inputs=tmp_path / "other.npz"), **QUICK))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((9, SIZE)), "its array 'x' is float64"),
        (np.zeros((9, SIZE + 1), np.float32), "takes float32 batchx128"),
        (np.zeros(SIZE, np.float32), "is float32 128,"),
        (np.array([object()]), "not an .npz file of numbers"),
    ],
    ids=["dtype", "size", "rank", "pickle"],
)
def test_an_npz_that_does_not_fit_is_blamed(
    small: Path, tmp_path: Path, array: np.ndarray, message: str
) -> None:
    np.savez(tmp_path / "in.npz", x=array)
    with pytest.raises(ArtifactError, match=rf"^\S*in\.npz: .*{message}"):
        bench(contenders([small]), Settings(sizes=Sizes(inputs=tmp_path / "in.npz"), **QUICK))


def test_what_is_no_npz_is_blamed(small: Path, tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "one.npy", np.zeros(3))
    for name, message in (("absent.npz", "no such file"), ("text.npz", "not an"), ("one.npy", "not an")):
        with pytest.raises(ArtifactError, match=f"{name}: {message}"):
            bench(contenders([small]), Settings(sizes=Sizes(inputs=tmp_path / name), **QUICK))


@pytest.fixture
def fix_batch(write_mlp: WriteMlp) -> Callable[..., Path]:
    """An ONNX file whose batch is fixed, and whose input may have another name."""

    def write(path: Path, batch: int, name: str = "x") -> Path:
        model = onnx.load(write_mlp(path))
        for value in (model.graph.input[0], model.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_value = batch
        model.graph.input[0].name = model.graph.node[0].input[0] = name
        onnx.save(model, path)
        return path

    return write


@pytest.mark.parametrize("name", ["x", "pixels"])
def test_a_fixed_size_is_every_files_size(
    small: Path, tmp_path: Path, fix_batch: Callable[..., Path], name: str
) -> None:
    fixed = fix_batch(tmp_path / "fixed.onnx", 2, name)
    for files in ([small, fixed], [fixed, small]):
        for batch in (None, 2):
            rows = bench(contenders(files), Settings(sizes=Sizes(batch=batch), **QUICK))
            assert [list(row.inputs.values()) for row in rows] == [[[2, SIZE]], [[2, SIZE]]]


def test_sizes_that_conflict_are_refused(small: Path, tmp_path: Path, fix_batch: Callable[..., Path]) -> None:
    two, three = fix_batch(tmp_path / "two.onnx", 2), fix_batch(tmp_path / "three.onnx", 3, "y")
    with pytest.raises(ConfigError, match=r"three\.onnx fixes dimension 0 .* at 3, but \S*two\.onnx .* at 2"):
        bench(contenders([small, two, three]), Settings(**QUICK))
    with pytest.raises(
        ConfigError, match=r"two\.onnx fixes the batch .* at 2, but --batch is 8: give --batch 2"
    ):
        bench(contenders([small, two]), Settings(sizes=Sizes(batch=8), **QUICK))
    with pytest.raises(ConfigError, match=r"two\.onnx fixes dimension 0 .* at 2, and 5 was asked for 'x'"):
        bench(contenders([small, two]), Settings(sizes=Sizes(dims={"batch": 5}), **QUICK))


def test_a_name_nobody_has_is_an_error(small: Path) -> None:
    with pytest.raises(ConfigError, match="no dimension is named 'bacth'; there is batch"):
        bench(contenders([small]), Settings(sizes=Sizes(dims={"bacth": 2})))
    with pytest.raises(ConfigError, match="no input is named 'z'; there is x"):
        bench(contenders([small]), Settings(sizes=Sizes(shapes={"z": (1,)})))
    with pytest.raises(ConfigError, match="threads is 0"):
        Settings(threads=0)
    with pytest.raises(ConfigError, match="batch is 0"):
        Sizes(batch=0)


def test_what_onnxruntime_says_reaches_the_user(small: Path) -> None:
    with pytest.raises(ArtifactError, match=r"small\.onnx: .*[Dd]imensions"):
        bench(contenders([small]), Settings(sizes=Sizes(shapes={"x": (1, SIZE + 1)}), **QUICK))


def test_not_an_onnx_file(tmp_path: Path, write_mlp: WriteMlp) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        read_onnx(tmp_path / "absent.onnx")
    for path, message in ((tmp_path, "is a directory"), (tmp_path / "empty.onnx", "is empty")):
        (tmp_path / "empty.onnx").touch()
        with pytest.raises(ArtifactError, match=message):
            read_onnx(path)
    for name, content in (("text", b"hello, world"), ("noise", bytes(range(256)))):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=f"{name}.onnx: not an ONNX file"):
            read_onnx(path)
    whole = write_mlp(tmp_path / "whole.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match=r"cut\.onnx: not an ONNX file, or cut short"):
        read_onnx(tmp_path / "cut.onnx")


def test_a_dead_worker_is_an_error(small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    suicidal = tmp_path / "worker.py"
    suicidal.write_text("import os; os._exit(9)")
    monkeypatch.setattr(race, "WORKER", suicidal)
    with pytest.raises(ArtifactError, match="the process that ran it died"):
        bench(contenders([small]), Settings(**QUICK))


def ask_worker(engine: str, path: Path, inputs: Path, absent: str = "torch", **request: object) -> dict:
    """What a worker without the module `absent` says of a file."""
    given = {"files": [str(path)], "library": False, "threads": 1, **request}
    first = {"engine": str(benching.ENGINES[engine]), "request": given, "cases": [{"inputs": str(inputs)}]}
    program = f"""
import sys, runpy
sys.modules[{absent!r}] = None
runpy.run_path(sys.argv[1], run_name="__main__")
"""
    command = [sys.executable, "-c", program, str(race.WORKER)]
    done = subprocess.run(command, input=json.dumps(first), capture_output=True, text=True, check=True)
    answer: dict = json.loads(done.stdout)
    return answer


PARENT = """
import signal, subprocess, sys, time
worker = subprocess.Popen([sys.executable, sys.argv[1]], stdin=subprocess.PIPE)
time.sleep(2)  # until it reads
worker.send_signal(signal.SIGSTOP)
print(worker.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a process that its parent is gone")
def test_a_stopped_worker_ends_with_its_parent() -> None:
    command = [sys.executable, "-c", PARENT, str(race.WORKER)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = parent.stdout.readline().strip()
        stopped = becomes(worker, "T")  # not at once, where it runs on another core
        parent.kill()
    assert stopped
    assert becomes(worker, "Z", None), "gone, but for a parent that has not looked yet"


def becomes(process: str, *states: str | None) -> bool:
    """Is it in one of them within ten seconds?"""
    for _ in range(100):
        if state(process) in states:
            return True
        time.sleep(0.1)
    return False


def state(process: str) -> str | None:
    """As `ps` tells it: T is stopped, Z has ended."""
    try:
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def test_worker_needs_no_torch(small: Path, tmp_path: Path) -> None:
    """Resident memory would be PyTorch's, not the model's."""
    np.savez(tmp_path / "x.npz", x=np.zeros((1, SIZE), np.float32))
    assert "load_ms" in ask_worker("onnx", small, tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("engine", "absent", "advice"),
    [("onnx", "onnxruntime", "pip install onnxruntime"), ("tvm", "tvm", "pip install 'apache-tvm")],
)
def test_a_worker_says_what_to_install(
    small: Path, tmp_path: Path, engine: str, absent: str, advice: str
) -> None:
    answer = ask_worker(engine, small, tmp_path / "none", absent, machine=platform.machine(), names=[])
    assert f"no module '{absent}" in answer["error"] and advice in answer["error"]


def test_a_library_for_another_machine_is_not_loaded(tmp_path: Path) -> None:
    declared = (Input("x", ("n",), np.dtype("f4")),)
    model = ModelFile(tmp_path / "m.so", "tvm", (tmp_path / "m.so",), declared, ours=True, machine="z80")
    with pytest.raises(ArtifactError, match=r"m\.so: made for z80, and this machine is .*--on user@host"):
        bench([Contender(model, "tvm")], Settings(**QUICK))


def test_what_is_no_number_cannot_be_made_up(small: Path) -> None:
    model = replace(read(small), inputs=(Input("text", (1,), None),))
    with pytest.raises(
        ArtifactError, match=r"small\.onnx: its input 'text' cannot be made up: give --inputs"
    ):
        bench([Contender(model, "onnxruntime")], Settings(**QUICK))


def test_an_input_may_have_any_name(tmp_path: Path, fix_batch: Callable[..., Path]) -> None:
    path = fix_batch(tmp_path / "m.onnx", 2, "file")
    (row,) = bench(contenders([path]), Settings(**QUICK))
    assert row.inputs == {"file": [2, SIZE]}
