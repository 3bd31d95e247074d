"""From a module to a file: every kind of layer, both arithmetics, judged by an oracle of our own."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import hashcompile as hc
import hashcompile_runtime as hcrt
from hashcompile.core.encoded import encoded_weights
from hashcompile.core.method import Compute
from tests.models import ZOO, Inputs, build
from tests.oracle import doubled, our_nodes, relative, restored, rounding

COMPUTES: tuple[Compute, ...] = ("float", "int8")


@functools.cache
def calibrated(name: str, compute: Compute) -> hc.CompiledModel:
    model, inputs = build(name)
    return hc.compile(model, inputs(2), calibration=[inputs(16), inputs(9)], compute=compute)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, tuple[hc.Check, ...]]]:
    folder = tmp_path_factory.mktemp("onnx")

    @functools.cache
    def exported(name: str, compute: Compute) -> tuple[Path, tuple[hc.Check, ...]]:
        path = folder / f"{name}_{compute}.onnx"
        # int8 files are held to their own checks, float files to ours
        return path, dataclasses.replace(calibrated(name, compute), verify=compute == "int8").export_onnx(
            path
        )

    return exported


def run(session: ort.InferenceSession, inputs: Inputs) -> Any:
    feeds = {entry.name: x.numpy() for entry, x in zip(session.get_inputs(), inputs, strict=True)}
    (output,) = session.run(None, feeds)
    return output


def stock(path: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("name", ZOO)
def test_the_graph_is_the_model_with_decoded_weights(name: str, compute: Compute) -> None:
    model, inputs = build(name)
    compiled = calibrated(name, compute)
    assert compiled.plan.encoded and not compiled.plan.refused
    twin = restored(model, compiled)
    for batch in (1, 3):
        wanted = twin(*doubled(inputs(batch)))
        assert relative(compiled(*inputs(batch)), wanted) <= rounding(compiled)


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("name", ZOO)
def test_compression_is_reported(name: str, compute: Compute) -> None:
    """The reported quality is the distance from the user's own model, on the inputs it was measured on."""
    model, inputs = build(name)
    compiled = calibrated(name, compute)
    quality = compiled.report().quality
    assert quality is not None
    with torch.no_grad():
        pairs = [
            (compiled(*batch).flatten(), model(*batch).flatten())
            for batch in (inputs(2), tuple(x[:8] for x in inputs(16)), tuple(x[:8] for x in inputs(9)))
        ]
    got, wanted = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    # fp32 outputs, and the library's own forward may sum in another order
    slack = 2 * rounding(compiled)
    assert quality.relative_error == pytest.approx(relative(got, wanted), abs=slack)
    assert quality.cosine == pytest.approx(
        float(nn.functional.cosine_similarity(got, wanted, dim=0)), abs=slack
    )
    assert 0 < quality.relative_error < 0.5, "4 bits keep most of the output"


@pytest.mark.parametrize("name", ZOO)
def test_float_files_equal_the_graph_in_both_runtimes(name: str, export: Any) -> None:
    _, inputs = build(name)
    compiled = calibrated(name, "float")
    path, _ = export(name, "float")
    for session in (stock(path), hcrt.session(path)):
        for batch in (1, 3, 5):
            with torch.no_grad():
                wanted = compiled(*inputs(batch))
            # both sides are fp32: each is off by at most `rounding`
            assert relative(run(session, inputs(batch)), wanted) <= 2 * rounding(compiled)


@pytest.mark.parametrize("name", ZOO)
def test_int8_files_stay_within_the_reported_tolerance(name: str, export: Any) -> None:
    _, inputs = build(name)
    compiled = calibrated(name, "int8")
    path, checks = export(name, "int8")
    sessions = {"stock": stock(path), "hashcompile": hcrt.session(path)}
    assert [check.runtime for check in checks] == list(sessions)
    for check in checks:
        assert check.error <= check.tolerance < 0.1
        for batch in (1, 3, 5):
            with torch.no_grad():
                wanted = compiled(*inputs(batch))
            error = relative(run(sessions[check.runtime], inputs(batch)), wanted)
            # the tolerance was derived from other inputs: a single sample may do worse than those, not by much
            assert error <= 2 * check.tolerance


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("name", ZOO)
def test_the_file_holds_the_codes_of_the_graph(name: str, compute: Compute, export: Any) -> None:
    """Codes are unpacked here by the documented formula; a convolution's rows lie (*kernel, C) in the file."""
    compiled = calibrated(name, compute)
    codes: dict[str, Any] = encoded_weights(compiled.graph_module)
    nodes = our_nodes(export(name, compute)[0])
    wanted = []
    for decision in compiled.plan.encoded:
        code, layer = codes[decision.layer.parameter], decision.layer
        group = torch.arange(len(code.indices)) // code.group_rows if code.group_rows else 0
        group = group * torch.ones(len(code.indices), dtype=torch.long)
        values = code.codebook.detach()[group[:, None], code.indices.long()]
        wanted.append((values, values.reshape(len(values), -1, *layer.view.shape[2:]).movedim(1, -1)))
    assert len(nodes) >= len(wanted)
    for node in nodes:
        values = torch.from_numpy(node.values())
        last = node.operator == "CodebookConv"
        assert any(torch.equal(values, pair[last].reshape(len(pair[last]), -1)) for pair in wanted)
        assert node.attributes.get("compute", compute == "int8") == (compute == "int8")


BITS = range(1, 9)


@pytest.mark.parametrize(
    ("bits", "group_size"), [*((bits, None) for bits in BITS), (1, 16), (4, 32), (7, 16)]
)
def test_every_width(bits: int, group_size: int | None, tmp_path: Path) -> None:
    model, inputs = build("mixed")
    config = hc.Codebook(bits, "per_group" if group_size else "per_tensor", group_size)
    compiled = hc.compile(model, inputs(2), {"*": config}, [inputs(32)], compute="float", verify=False)
    codes: dict[str, Any] = encoded_weights(compiled.graph_module)
    assert codes
    for name, code in codes.items():
        rows = len(code.indices)
        assert code.codebook.shape == (-(-rows // group_size) if group_size else 1, 2**bits), name
        assert int(code.indices.max()) < 2**bits
    twin = restored(model, compiled)
    compiled.export_onnx(tmp_path / "m.onnx")
    for session in (stock(tmp_path / "m.onnx"), hcrt.session(tmp_path / "m.onnx")):
        for batch in (1, 5):
            wanted = twin(*doubled(inputs(batch)))
            assert relative(run(session, inputs(batch)), wanted) <= rounding(compiled)


def test_more_bits_are_better() -> None:
    model, inputs = build("mlp")
    errors = []
    for bits in BITS:
        quality = hc.compile(model, inputs(64), hc.Codebook(bits), [inputs(64)]).report().quality
        assert quality is not None
        errors.append(quality.relative_error)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02 < 0.2 < errors[0]


@pytest.mark.parametrize("name", ["mlp", "cnn", "attention"])
@pytest.mark.parametrize("bits", [2, 3])
def test_calibration_beats_data_free(name: str, bits: int) -> None:
    """On inputs that neither has seen, of a distribution whose directions differ in size."""
    model, inputs = build(name)
    width = inputs(1)[0].shape[1] if name == "cnn" else inputs(1)[0].shape[-1]
    shape = (width, 1, 1) if name == "cnn" else (width,)
    size = torch.logspace(-1, 1, width).reshape(shape)

    def batch(n: int) -> Inputs:
        return (inputs(n)[0] * size,)

    method = hc.Codebook(bits)
    free = hc.compile(model, batch(2), method)
    fitted = hc.compile(model, batch(2), method, [batch(128), batch(127)])
    with torch.no_grad():
        x = batch(60)
        wanted = model(*x)
        assert relative(fitted(*x), wanted) < 0.95 * relative(free(*x), wanted)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_person_at_a_terminal_sees_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    model, inputs = build("cnn")
    for show, stages in (
        (True, ["capturing", "running the original", "encoding", "refitting batch norms", "measuring"]),
        (False, []),
    ):
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        compiled = hc.compile(model, inputs(2), calibration=[inputs(8)], progress=show)
        compiled.export_onnx(tmp_path / "m.onnx", show=show)
        seen = terminal.getvalue()
        stages = [*stages, "lowering to ONNX", "verifying"] if show else []
        assert all(stage in seen for stage in stages)
        assert sorted(stages, key=seen.index) == stages and bool(seen) == show


SCRIPT = """
import sys, torch, hashcompile as hc
from tests.models import build
torch.set_num_threads(int(sys.argv[1]))
for name in ("cnn", "attention", "tied"):
    model, inputs = build(name)
    compiled = hc.compile(model, inputs(2), calibration=[inputs(40), inputs(33), inputs(7)], verify=False)
    compiled.export_onnx(f"{sys.argv[2]}/{name}.onnx")
    compiled.save(f"{sys.argv[2]}/{name}.hc")
"""


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """Digests of what two processes wrote, with 1 and 2 threads."""
    found = []
    for threads in ("1", "2"):
        folder = tmp_path_factory.mktemp(f"threads{threads}")
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, threads, str(folder)],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONHASHSEED": threads, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        found.append(digests(folder))
    return found


def test_onnx_bytes_do_not_depend_on_threads_or_process(saved: list[dict[str, str]]) -> None:
    one, two = ({k: v for k, v in found.items() if k.endswith(".onnx")} for found in saved)
    assert len(one) == 3 and one == two


def test_hc_bytes_do_not_depend_on_threads_or_process(saved: list[dict[str, str]]) -> None:
    one, two = ({k: v for k, v in found.items() if k.endswith(".hc")} for found in saved)
    assert len(one) == 3 and one == two


def test_onnx_bytes_do_not_depend_on_what_ran_before(tmp_path: Path) -> None:
    model, inputs = build("mlp")
    for seed in range(2):
        torch.manual_seed(seed)  # the caller's generator is neither read nor moved
        state = torch.random.get_rng_state()
        compiled = hc.compile(model, inputs(2), calibration=[inputs(16)])
        assert torch.equal(torch.random.get_rng_state(), state)
        for _ in range(2):
            compiled.export_onnx(tmp_path / f"{seed}.onnx")
    assert (tmp_path / "0.onnx").read_bytes() == (tmp_path / "1.onnx").read_bytes()


@pytest.mark.parametrize("compute", COMPUTES)
def test_fine_tuning(compute: Compute, tmp_path: Path) -> None:
    model, inputs = build("cnn")
    compiled = hc.compile(model, inputs(4), hc.Codebook(2), [inputs(64)], compute=compute)
    graph = compiled.graph_module
    x = inputs(64)[0]
    with torch.no_grad():
        wanted = model(x)

    def loss() -> Tensor:
        return nn.functional.mse_loss(graph(x), wanted)

    codes: dict[str, Any] = encoded_weights(graph)
    assert len(codes) == 3
    trained = {name: p for name, p in graph.named_parameters() if p.requires_grad}
    assert {f"{name}.{part}" for name in codes for part in ("codebook", "scale")} <= set(trained)
    indices = {name: code.indices.clone() for name, code in codes.items()}
    losses = [float(loss())]
    loss().backward()
    for name, code in codes.items():
        assert bool(code.codebook.grad.abs().sum() > 0), name
        assert bool(code.scale.grad.abs().sum() > 0), name
    start = {name: p.detach().clone() for name, p in trained.items()}
    rate = losses[0] / sum(float(p.grad.square().sum()) for p in trained.values() if p.grad is not None)
    for _ in range(40):  # the gradient is right if a step along it helps once it is short enough
        rate /= 2
        graph.load_state_dict(start, strict=False)
        optimizer = torch.optim.SGD(trained.values(), lr=rate)
        for _ in range(3):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
            losses.append(float(loss()))
        if losses[-3] < losses[0] and losses[-3:] == sorted(losses[-3:], reverse=True):
            break
    assert losses[-1] < losses[-2] < losses[-3] < losses[0]
    assert all(torch.equal(code.indices, indices[name]) for name, code in codes.items())
    checks = compiled.export_onnx(tmp_path / "m.onnx")
    assert all(check.error <= check.tolerance for check in checks)
    with torch.no_grad():
        assert relative(run(stock(tmp_path / "m.onnx"), (x,)), compiled(x)) <= 2 * rounding(compiled)


@pytest.mark.parametrize("compute", COMPUTES)
def test_the_usual_optimizer_does_not_wreck_the_codes(compute: Compute) -> None:
    """Adam's first step moves every parameter by its rate, 1e-3 by default; weights here are about 0.1."""
    model, inputs = build("mlp")
    graph = hc.compile(model, inputs(4), hc.Codebook(2), [inputs(64)], compute=compute).graph_module
    x = inputs(64)[0]
    wanted = model(x).detach()
    optimizer = torch.optim.Adam(graph.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(graph(x), wanted)
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]


def test_training_mode() -> None:
    model, inputs = build("cnn")
    graph = hc.compile(model, inputs(4)).graph_module
    x = inputs(8)[0]
    still = graph(x)
    mean = graph.norm1.running_mean.clone()
    assert torch.equal(graph(x), still) and torch.equal(graph.norm1.running_mean, mean)
    assert not torch.equal(graph.train()(x), still)
    assert not torch.equal(graph.norm1.running_mean, mean)
    graph.eval()
    assert torch.equal(graph(x), graph(x))


def test_export_in_training_mode(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(50, 70), nn.BatchNorm1d(70), nn.Dropout(), nn.Linear(70, 33))
    compiled = hc.compile(model, (torch.randn(4, 50),))
    compiled.graph_module.train()
    state = {name: tensor.clone() for name, tensor in compiled.graph_module.state_dict().items()}
    try:
        compiled.export_onnx(tmp_path / "m.onnx")
    finally:
        changed = [n for n, t in compiled.graph_module.state_dict().items() if not torch.equal(t, state[n])]
        assert not changed, "an export changes nothing"
    assert compiled.graph_module.training


@pytest.mark.parametrize("name", ZOO)
def test_sizes_are_those_of_the_file(name: str, export: Any) -> None:
    compiled, (path, _) = calibrated(name, "float"), export(name, "float")
    held = {
        tensor.name: numpy_helper.to_array(tensor).nbytes for tensor in onnx.load(str(path)).graph.initializer
    }
    report = compiled.report()
    codes = encoded_weights(compiled.graph_module)
    for line, decision in zip(report, compiled.plan, strict=True):
        parameter = decision.layer.parameter
        stored = sum(
            size for key, size in held.items() if key.rstrip("_") in {f"{parameter}.{p}" for p in PARTS}
        )
        assert line.nbytes == stored == codes[parameter].nbytes
        assert line.dense_nbytes == 4 * decision.layer.view.numel
        assert line.bits_per_weight == pytest.approx(8 * stored / decision.layer.view.numel)
    assert report.nbytes == sum(line.nbytes for line in report) + report.other_nbytes
    if not any(isinstance(module, nn.BatchNorm2d) for module in build(name)[0].modules()):
        floats = sum(
            numpy_helper.to_array(tensor).nbytes
            for tensor in onnx.load(str(path)).graph.initializer
            if tensor.data_type != onnx.TensorProto.INT64 and tensor.dims  # no shapes, axes, literals
        )
        assert report.nbytes == floats
    # codes may be padded, a file has its structure: yet it is about what was promised
    assert report.nbytes < os.path.getsize(path)


PARTS = ("codes", "codebook", "scale")


def test_report_of_refused_layers() -> None:
    model = nn.Sequential(nn.Linear(50, 70), nn.Linear(70, 2, bias=False))
    report = hc.compile(model, (torch.ones(2, 50),)).report()
    small = report["1"]
    assert small.method is None and small.kernel is None and small.error is None
    assert small.nbytes == small.dense_nbytes == 4 * 140 and small.bits_per_weight == 32
    assert small.reason is not None and small.reason.startswith("too small to gain")
    assert report["0"].reason is None and report["0"].kernel is not None
    assert report.other_nbytes == 4 * 70
    assert report.dense_nbytes == 4 * (50 * 70 + 140 + 70)
    text = str(report)
    assert "too small to gain" in text and "codebook 4 bit" in text
    assert report.as_dict()["nbytes"] == report.nbytes
    with pytest.raises(KeyError, match="'2'"):
        report["2"]


@pytest.mark.parametrize("name", ZOO)
def test_the_report_tells_the_operator_that_runs(name: str, export: Any) -> None:
    report = calibrated(name, "float").report()
    operators = [node.operator for node in our_nodes(export(name, "float")[0])]
    for line in report:
        for operator in (line.kernel or "CodebookDecode").split(", "):
            assert operator.split()[0] in operators
    assert sum(line.kernel is None for line in report) == operators.count("CodebookDecode")


def test_errors_of_layers_without_data() -> None:
    """||W - D|| / ||W||, as anyone can compute it."""
    model, inputs = build("mlp")
    compiled = hc.compile(model, inputs(2), compute="float")
    twin = restored(model, compiled)
    for name in ("0", "2"):
        got, wanted = twin.get_submodule(name).weight, model.get_submodule(name).weight
        assert compiled.report()[name].error == pytest.approx(relative(got, wanted), rel=1e-4)


X = torch.ones(2, 50)


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ([], "calibration is empty"),
        (iter(()), "calibration is empty"),
        ([(X[:0],)], "every calibration batch is empty"),
        ([(X,), (X[:, :49],)], r"batch 1: input 'input' has shape \(2, 49\), wanted \(batch, 50\)"),
        ([(X,), (X.double(),)], r"batch 1: input 'input' is torch\.float64"),
        ([(X, X)], "batch 0: the model takes 1 input"),
        ([(X,), ("x",)], "batch 1: input 'input' is a str"),
        ([(X.numpy(),)], "batch 0: input 'input' is a ndarray"),
        ([(X * float("nan"),)], "batch 0: input 'input' holds NaN"),
        ([(X,), (X / 0,)], "batch 1: input 'input' holds NaN or infinite"),
        (X, "put it in a list"),
        ({"input": X}, "put it in a list"),
        ("data", "put it in a list"),
        (3, "put it in a list"),
        ([(X * 1e30,)], "NaN or infinite"),  # finite, yet its squares are not
    ],
)
def test_calibration_errors(calibration: Any, message: str) -> None:
    with pytest.raises(hc.CalibrationError, match=message):
        hc.compile(build("mlp")[0], (X,), calibration=calibration)


def test_an_id_beyond_the_vocabulary() -> None:
    model, inputs = build("embedding")
    with pytest.raises((hc.CalibrationError, IndexError)):
        hc.compile(model, inputs(2), calibration=[(inputs(2)[0] + 80,)])


def test_an_id_beyond_the_vocabulary_is_a_calibration_error() -> None:
    model, inputs = build("embedding")
    with pytest.raises(hc.CalibrationError):
        hc.compile(model, inputs(2), calibration=[(inputs(2)[0] + 80,)])


def test_calibration_may_be_a_generator_of_tuples_or_tensors() -> None:
    model, inputs = build("mlp")

    def batches(bare: bool) -> Iterator[Any]:
        for size in (5, 6, 7):
            yield inputs(size)[0] if bare else inputs(size)

    wanted = hc.compile(model, inputs(2), calibration=[inputs(size) for size in (5, 6, 7)])
    for bare in (False, True):
        got = hc.compile(model, inputs(2), calibration=batches(bare))
        assert torch.equal(got(*inputs(9)), wanted(*inputs(9)))


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.a(x) - self.b(y)


def two_inputs() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(64, 32) * torch.logspace(-1, 1, 32), torch.randn(64, 32)


def test_calibration_by_name_in_any_order() -> None:
    x, y = two_inputs()
    model = Two()
    wanted = hc.compile(model, (x, y), hc.Codebook(2), [(x, y)])
    for calibration in ({"x": x, "y": y}, {"y": y, "x": x}):
        got = hc.compile(model, {"x": x, "y": y}, hc.Codebook(2), [calibration])
        assert torch.equal(got(x=x, y=y), wanted(x, y))


def test_calibration_by_name_for_a_model_captured_by_position() -> None:
    x, y = two_inputs()
    model = Two()
    wanted = hc.compile(model, (x, y), hc.Codebook(2), [(x, y)])
    try:
        got = hc.compile(model, (x, y), hc.Codebook(2), [{"y": y, "x": x}])
    except hc.CalibrationError:
        return  # to refuse is right as well
    assert torch.equal(got(x, y), wanted(x, y))


class Positions(nn.Module):
    """Position embeddings as most encoders have them: their ids are a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(60, 32), nn.Embedding(16, 32)
        self.register_buffer("ids", torch.arange(16))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.tokens(tokens) + self.places(self.ids)


def test_a_layer_that_reads_a_buffer_can_be_calibrated() -> None:
    tokens = torch.arange(48).reshape(3, 16)
    compiled = hc.compile(Positions(), (tokens,), calibration=[(tokens,)])
    assert len(compiled.plan.encoded) == 2


def test_inputs_that_require_grad(tmp_path: Path) -> None:
    model, inputs = build("mlp")
    hc.compile(model, inputs(2), calibration=[(inputs(4)[0].requires_grad_(),)])


def test_an_example_that_requires_grad(tmp_path: Path) -> None:
    model, inputs = build("mlp")
    hc.compile(model, (inputs(2)[0].requires_grad_(),)).export_onnx(tmp_path / "m.onnx")


def test_example_inputs_of_batch_one_compile_for_every_batch(tmp_path: Path) -> None:
    model, inputs = build("cnn")
    compiled = hc.compile(model, inputs(1), compute="float")
    compiled.export_onnx(tmp_path / "m.onnx")
    x = inputs(4)
    assert relative(run(stock(tmp_path / "m.onnx"), x), compiled(*x)) <= 2 * rounding(compiled)
    assert np.isfinite(run(hcrt.session(tmp_path / "m.onnx"), inputs(1))).all()
