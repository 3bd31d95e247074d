"""The command line: help that teaches, one message an error, and files that the other commands can read."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from platform import machine

import numpy as np
import onnxruntime as ort
import pytest
from typer.testing import CliRunner, Result

import hashcompile as hc
import hashcompile_runtime as hcrt
from hashcompile import cli
from hashcompile.core.console import format_bytes
from hashcompile.core.errors import ExportError

ZOO = """
from types import SimpleNamespace
import torch
from torch import nn

def pair():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10)).eval()
    return model, (torch.randn(2, 64),)

def triple():
    return (*pair(), batches())

def record():
    model, example_inputs = pair()
    return SimpleNamespace(model=model, example_inputs=example_inputs)

def batches():
    torch.manual_seed(1)
    return [(torch.randn(32, 64),) for _ in range(4)]

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.tok, self.pos = nn.Embedding(200, 128), nn.Embedding(64, 128)
        self.grouped = nn.Conv1d(128, 128, 3, padding=1, groups=2)
        self.head = nn.Linear(128, 200, bias=False)
        self.head.weight = self.tok.weight

    def forward(self, ids):
        x = self.tok(ids) + self.pos(torch.arange(16))
        return self.head(self.grouped(x.transpose(1, 2)).transpose(1, 2))

def tied():
    torch.manual_seed(0)
    return Tied().eval(), (torch.randint(0, 200, (2, 16)),)

def raises():
    return nn.Linear(1, 2, 3, 4, 5, 6, 7)  # raises: here

def nonsense():
    return 42

constant = 7
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a user's module, and the process standing in it."""
    (tmp_path / "zoo.py").write_text(ZOO)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "zoo", raising=False)
    return tmp_path


def test_compile_says_what_was_verified(zoo: Path) -> None:
    made = run("compile", "zoo:pair", "-o", "m.onnx")
    assert made.exit_code == 0, made.output
    lines = [line for line in made.output.splitlines() if line.startswith("verified in ")]
    assert [line.split()[2] for line in lines] == ["stock:", "hashcompile:"]
    assert all("error" in line and "tolerance" in line for line in lines)
    assert "verified" not in run("compile", "zoo:pair", "--no-verify", "-o", "m.onnx").output


def test_uniform_codes(zoo: Path) -> None:
    assert run("compile", "zoo:pair", "--bits", 8, "--uniform", "--save", "m.hc").exit_code == 0
    assert str(hc.load("m.hc").plan.encoded[0].config) == "int8"
    refused = run("compile", "zoo:pair", "--uniform", "--save", "m.hc")
    assert refused.exit_code == 1 and "--bits 8" in refused.output


def test_globs_that_skip_everything(zoo: Path) -> None:
    refused = run("compile", "zoo:pair", "--skip", "0", "--skip", "2", "-o", "m.onnx")
    assert refused.exit_code == 1 and not Path("m.onnx").exists()
    assert "--skip '0' --skip '2': every layer is skipped" in " ".join(refused.output.split())


def test_help_teaches() -> None:
    overview = run("--help").output
    for command in ("compile", "inspect", "bench", "recommend", "demo"):
        assert command in overview
        page = run(command, "--help")
        assert page.exit_code == 0
        assert f"hashcompile {command}" in page.output.split("Example", 1)[1], "an example to copy"
    assert "Commands" in run().output, "without a command: what there is"


def test_a_library_is_written_measured_and_judged(zoo: Path) -> None:
    pytest.importorskip("tvm", reason="TVM is not installed: pip install 'hashcompile[tvm]'")
    made = run("compile", "zoo:pair", "--tvm", "m.so", "--save", "m.hc")
    assert made.exit_code == 0, made.output
    assert "verified in tvm: relative error" in made.output
    assert f"wrote m.so, {format_bytes(Path('m.so').stat().st_size)}" in made.output

    measured = run("bench", "m.so", "--runs", 10, "--threads", 1, "--batch", 3, "--json")
    (row,) = json.loads(measured.output)
    assert row["runtime"] == "tvm" and row["inputs"] == {"input": [3, 64]}

    told = json.loads(run("inspect", "m.so", "--json").output)
    assert told["inputs"] == [{"name": "input", "dtype": "float32", "shape": ["batch", 64]}]
    assert told["machine"] == machine() and told["file_bytes"] == Path("m.so").stat().st_size
    shown = run("inspect", "m.so").output
    assert "batch x 64" in shown and f"a TVM library for {machine()}" in " ".join(shown.split())

    advice = run("recommend", "m.hc", "--runs", 10, "--threads", 1, "--prefer", "size", "--json")
    assert advice.exit_code == 0, advice.output
    told = json.loads(advice.output)
    assert told["winner"] == "onnx", "a library holds our kernels, too"
    assert told["reasons"][0].startswith("size on disk decides")
    assert [row["file"] for row in told["results"]] == ["model.onnx", "model.so"]


def test_a_missing_compiler_is_told_before_the_model_is_compressed(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(target: str) -> None:
        raise ExportError(f"there is nothing to compile for {target} with")

    monkeypatch.setattr(cli, "look_for", missing)
    monkeypatch.setattr(hc, "compile", None)
    refused = run("compile", "zoo:pair", "--tvm", "m.so", "--target", "arm64", "--save", "m.hc")
    assert refused.exit_code == 1 and "nothing to compile for arm64" in refused.output
    assert not Path("m.hc").exists()


@pytest.mark.parametrize("factory", ["pair", "triple", "record"])
def test_compile_inspect_bench(zoo: Path, factory: str) -> None:
    made = run("compile", f"zoo:{factory}", "--bits", 3, "--skip", "2", "-o", "m.onnx", "--save", "m.hc")
    assert made.exit_code == 0, made.output
    for file in ("m.onnx", "m.hc"):
        assert f"wrote {file}, {format_bytes(Path(file).stat().st_size)}" in made.output
    assert isinstance(hc.load("m.hc"), object)

    for file in ("m.onnx", "m.hc"):
        contents = json.loads(run("inspect", file, "--json").output)
        assert contents["ours"]
        assert contents["file_bytes"] == Path(file).stat().st_size
        (layer,) = contents["layers"]
        assert layer["bits"] == 3
        assert layer["shape"] == [48, 64]
        assert 48 * 64 * 3 / 8 <= layer["bytes"] < contents["file_bytes"]
        assert contents["other_bytes"] >= 10 * 48 * 4, "the layer that was skipped"
        text = run("inspect", file).output
        assert "48 x 64" in text

    advice = run("bench", "m.hc")
    assert advice.exit_code == 1
    assert "export_onnx" in advice.stderr

    measured = run("bench", "m.onnx", "--stock", "--runs", 10, "--threads", 1, "--json")
    assert measured.exit_code == 0, measured.output
    assert [row["runtime"] for row in json.loads(measured.output)] == ["hashcompile", "onnxruntime"]


def test_options_reach_the_compiler(zoo: Path) -> None:
    files = {}
    for name, options in {
        "plain": (),
        "again": (),
        "float": ("--compute", "float"),
        "grouped": ("--group-size", 16),
        "calibrated": ("--calibration", "zoo:batches"),
        "unverified": ("--no-verify",),
    }.items():
        made = run("compile", "zoo:pair", "-o", f"{name}.onnx", *options)
        assert made.exit_code == 0, made.output
        files[name] = Path(f"{name}.onnx").read_bytes()
    assert files["plain"] == files["again"] == files["unverified"]
    assert len({files[name] for name in ("plain", "float", "grouped", "calibrated")}) == 4
    computes = [
        layer["compute"] for layer in json.loads(run("inspect", "float.onnx", "--json").output)["layers"]
    ]
    assert set(computes) == {"float"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compile", "zoo:pair"), "nothing to write"),
        (("compile", "zoo", "-o", "m.onnx"), "wanted MODULE:FUNCTION"),
        (("compile", "zoo:absent", "-o", "m.onnx"), "zoo has no function 'absent'"),
        (("compile", "zoo:constant", "-o", "m.onnx"), "zoo has no function 'constant'"),
        (("compile", "no_zoo:pair", "-o", "m.onnx"), "no module 'no_zoo' here"),
        (("compile", "zoo:nonsense", "-o", "m.onnx"), "the factory returned a int"),
        (("compile", "zoo:pair", "--bits", "9", "-o", "m.onnx"), "bits"),
        (("compile", "zoo:pair", "--skip", "fc9", "-o", "m.onnx"), "fc9"),
        (("compile", "zoo:pair", "--group-size", "7", "-o", "m.onnx"), "group_size"),
        (("compile", "zoo:pair", "-o", "no/such/folder/m.onnx"), "no/such/folder"),
        (("compile", "zoo:nonsense", "-o", "zoo.py/m.onnx"), "there is no directory zoo.py"),
        (("compile", "zoo:nonsense", "-o", "."), "is a directory"),
        (("compile", "zoo:nonsense", "-o", "m", "--save", "./m"), "both m"),
        (("compile", "zoo:nonsense", "--tvm", "m", "--save", "./m"), "both m"),
        (("compile", "zoo:nonsense", "--tvm", "m.onnx"), "write it with -o m.onnx"),
        (("compile", "zoo:nonsense", "-o", "m.so"), "write it with --tvm m.so"),
        (("compile", "zoo:nonsense", "--tvm", "m.tar"), "m.tar: the name of a TVM library ends in .so"),
        (("compile", "zoo:nonsense", "-o", "m.onnx", "--tune", "trials"), "give --tvm model.so"),
        (("compile", "zoo:nonsense", "--tvm", "m.so", "--trials", "3"), "--trials goes with --tune FOLDER"),
        (("compile", "zoo:nonsense", "-o", "m.onnx", "--target", "cuda"), "give --tvm model.so"),
        (("compile", "zoo:nonsense", "--tvm", "m.so", "--target", "gpu"), "wanted cpu, arm64, cuda"),
        (("compile", "zoo:nonsense", "--tvm", "m.so", "--tune", "zoo.py"), "zoo.py' is a file"),
        (("bench", "zoo.py", "--on=-oProxyCommand=x"), "is no host"),
        (("compile", "zoo:nonsense", "-o", "m.hc"), "write it with --save m.hc"),
        (("compile", "zoo:nonsense", "--save", "m.onnx"), "write it with -o m.onnx"),
        (("compile", "zoo:nonsense", "-o", "m.onnx", "--skip", "*"), "every layer is skipped"),
        (("compile", "zoo.py:pair", "-o", "m.onnx"), "write zoo:pair"),
        (("recommend", "zoo.py"), "zoo.py"),
        (("inspect", "absent.onnx"), "no such file"),
        (("inspect", "."), "is a directory"),
        (("inspect", "zoo.py"), "not an ONNX file"),
        (("inspect", str(hcrt.library_path())), "a shared library, but not one that hashcompile wrote"),
        (("bench", "zoo.py"), "not an ONNX file"),
        (("bench", "zoo.py", "--dim", "batch"), "--dim batch: wanted NAME=NUMBER"),
        (("bench", "zoo.py", "--shape", "x=1,b"), "--shape x=1,b: wanted NAME=NUMBER"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_our_errors_are_one_message(zoo: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 1
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert not list(zoo.glob("**/m.onnx*")), "nothing half-written"
    with pytest.raises(hc.HashcompileError):
        CliRunner().invoke(cli.app, ["--debug", *arguments], catch_exceptions=False)


def test_their_errors_are_one_line_with_its_place(zoo: Path) -> None:
    (zoo / "broken.py").write_text("\nimport not_there_at_all\n")
    line = 1 + next(i for i, text in enumerate(ZOO.splitlines()) if "raises: here" in text)
    for spec, kind, message in (
        ("zoo:raises", TypeError, f"zoo:raises failed: TypeError: .* \\(zoo.py:{line}\\)"),
        ("broken:make", ModuleNotFoundError, "broken failed: .*not_there_at_all.* \\(broken.py:2\\)"),
    ):
        done = run("compile", spec, "-o", "m.onnx")
        assert done.exit_code == 1
        assert re.search(message, done.stderr)
        assert len(done.stderr.splitlines()) == 1
        with pytest.raises(hc.ConfigError) as raised:
            CliRunner().invoke(cli.app, ["--debug", "compile", spec, "-o", "m.onnx"], catch_exceptions=False)
        assert isinstance(raised.value.__cause__, kind), "the traceback shows it"


def test_version() -> None:
    assert run("--version").output.split() == ["hashcompile", hc.__version__]


def test_inspect_reads_constant_ids_tied_and_decoded_weights(zoo: Path) -> None:
    made = run("compile", "zoo:tied", "-o", "m.onnx", "--save", "m.hc")
    assert made.exit_code == 0, made.output
    contents = json.loads(run("inspect", "m.onnx", "--json").output)
    assert sum(layer["bytes"] for layer in contents["layers"]) == contents["compressed_bytes"]
    by_op: dict[str, dict[str, list[int]]] = {}
    for layer in contents["layers"]:
        by_op.setdefault(layer["op"], {})[layer["name"]] = layer["shape"]
    assert sorted(by_op["CodebookEmbedding"].values()) == [[64, 128], [200, 128]]
    assert list(by_op["CodebookLinear"].values()) == [[200, 128]]
    (shared,) = (layer for layer in contents["layers"] if layer["shared_with"])
    assert shared["bytes"] == 0
    assert f"shared with {shared['shared_with']}" in run("inspect", "m.onnx").output

    computes = {
        layer["name"]: layer["compute"]
        for layer in json.loads(run("inspect", "m.hc", "--json").output)["layers"]
    }
    assert len(computes) == 3
    assert computes["pos"] is None
    assert computes["grouped"] == "int8"
    assert computes.get("head", computes.get("tok")) == "int8", "its second reader computes"


def test_inspect_says_what_is_not_ours(tmp_path: Path, write_mlp: Callable[..., Path]) -> None:
    path = write_mlp(tmp_path / "foreign.onnx", layers=3)
    assert "not one of ours" in run("inspect", path).output
    assert "3 MatMul" in " ".join(run("inspect", path).output.split()), "wherever a long path breaks the line"
    contents = json.loads(run("inspect", path, "--json").output)
    assert contents == {
        "file": str(path),
        "ours": False,
        "file_bytes": path.stat().st_size,
        "compressed_bytes": 0,
        "other_bytes": 128 * 128 * 4,
        "layers": [],
        "operators": {"MatMul": 3},
    }


def test_bench_compares_with_any_other_file(zoo: Path, write_mlp: Callable[..., Path]) -> None:
    assert run("compile", "zoo:pair", "-o", "m.onnx").exit_code == 0
    foreign = write_mlp(zoo / "foreign.onnx")
    done = run("bench", "m.onnx", foreign, "--runs", 10, "--batch", 4)
    assert done.exit_code == 0, done.output
    assert {"m.onnx", "foreign.onnx", "hashcompile", "onnxruntime"} <= set(done.output.split())


def test_exported_file_runs_where_nobody_knows_us(zoo: Path) -> None:
    assert run("compile", "zoo:pair", "-o", "m.onnx").exit_code == 0
    session = ort.InferenceSession("m.onnx")
    (name,) = (node.name for node in session.get_inputs())
    assert session.run(None, {name: np.zeros((5, 64), np.float32)})[0].shape == (5, 10)
