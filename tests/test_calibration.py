"""What may be given as calibration data and as example inputs, and what is said of the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
import hashcompile_runtime as hcrt
from tests.models import build
from tests.oracle import relative, rounding, run, stock

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
