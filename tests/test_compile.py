"""From a module to a file: every kind of layer, both arithmetics, judged by an oracle of our own."""

from __future__ import annotations

import dataclasses
import functools
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import hashcompile as hc
import hashcompile_runtime as hcrt
from hashcompile.core.encoded import encoded_weights
from hashcompile.core.method import Compute
from tests.models import COMPUTES, ZOO, Inputs, build
from tests.oracle import doubled, our_nodes, relative, restored, rounding, run, stock


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
