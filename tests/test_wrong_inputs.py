"""A compiled model called wrongly says which input does not fit, and how."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 32)
        self.fc = nn.Linear(32, 32)

    def forward(self, ids: Tensor, bias: Tensor) -> Tensor:
        return self.fc(self.embed(ids).mean(1)) - bias


IDS, BIAS = torch.arange(21).reshape(3, 7), torch.linspace(-1, 1, 96).reshape(3, 32)


@pytest.fixture(scope="module")
def text() -> hc.CompiledModel:
    return hc.compile(Text(), (IDS, BIAS))


@pytest.fixture(scope="module")
def named() -> hc.CompiledModel:
    return hc.compile(Text(), {"ids": IDS, "bias": BIAS})


def test_right_inputs(text: hc.CompiledModel, named: hc.CompiledModel) -> None:
    assert text(IDS, BIAS).shape == (3, 32)
    assert torch.equal(text(ids=IDS, bias=BIAS), text(IDS, BIAS))
    assert torch.equal(text(IDS, bias=BIAS), text(IDS, BIAS))
    assert torch.equal(named(bias=BIAS, ids=IDS), named(ids=IDS, bias=BIAS))
    assert text(IDS[:1], BIAS[:1]).shape == (1, 32)


def test_keywords_in_any_order(text: hc.CompiledModel) -> None:
    assert torch.equal(text(bias=BIAS, ids=IDS), text(IDS, BIAS))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), r"takes 2 inputs \(ids, bias\), got 0"),
        ((IDS,), r"takes 2 inputs \(ids, bias\), got 1"),
        ((IDS, BIAS, BIAS), r"takes 2 inputs \(ids, bias\), got 3"),
        ((BIAS, IDS), r"'ids' is torch\.float32, wanted torch\.int64"),
        ((IDS.int(), BIAS), r"'ids' is torch\.int32, wanted torch\.int64"),
        ((IDS, BIAS.double()), r"'bias' is torch\.float64, wanted torch\.float32"),
        ((IDS, BIAS.half()), r"'bias' is torch\.float16, wanted torch\.float32"),
        ((IDS[:, :6], BIAS), r"'ids' has shape \(3, 6\), wanted \(batch, 7\)"),
        ((IDS[0], BIAS), r"'ids' has shape \(7\), wanted \(batch, 7\)"),
        ((IDS, BIAS[..., None]), r"'bias' has shape \(3, 32, 1\), wanted \(batch, 32\)"),
        ((IDS, BIAS[:2]), r"batch is 3 in input 'ids' but 2 in input 'bias'"),
        ((IDS.numpy(), BIAS), r"'ids' is a ndarray, wanted a tensor"),
        ((IDS, None), r"'bias' is a NoneType, wanted a tensor"),
        ((IDS, 1.0), r"'bias' is a float, wanted a tensor"),
        ((IDS, np.float32(1)), r"'bias' is a float32, wanted a tensor"),
    ],
)
def test_wrong_inputs(text: hc.CompiledModel, inputs: tuple[Any, ...], message: str) -> None:
    with pytest.raises(hc.InputError, match=message):
        text(*inputs)
    assert issubclass(hc.InputError, TypeError)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"ids": IDS}, "takes 2 inputs"),
        ({"ids": IDS, "bias": BIAS.double()}, r"'bias' is torch\.float64"),
        ({"bias": BIAS, "ids": IDS[:, :6]}, r"'ids' has shape"),
        ({}, "takes 2 inputs"),
    ],
)
def test_wrong_named_inputs(named: hc.CompiledModel, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(hc.InputError, match=message):
        named(**inputs)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {"ids": IDS, "offset": BIAS}),
        ((IDS,), {"ids": BIAS}),
        (([IDS, BIAS],), {}),
        (({"ids": IDS, "bias": BIAS},), {}),
    ],
    ids=["unknown name", "given twice", "a list", "a dict"],
)
def test_inputs_in_the_wrong_form(text: hc.CompiledModel, args: Any, kwargs: Any) -> None:
    with pytest.raises(hc.InputError):
        text(*args, **kwargs)


class Minus(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x - y


def test_positions_mean_what_they_mean_to_the_model() -> None:
    x, y = torch.ones(2, 3), torch.zeros(2, 3)
    compiled = hc.compile(Minus(), {"y": y, "x": x})
    try:
        got = compiled(x, y)
    except hc.InputError:
        return  # to refuse is right as well
    assert torch.equal(got, x - y)
