"""Weights that are not as weights are, by every method: a result that computes, or an error that names the layer."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc

METHODS: dict[str, Any] = {
    "codebook": hc.Codebook(4),
    "groups": hc.Codebook(2, "per_group", 16),
    "learnt": hc.Codebook(2, learn=True),
    "int8": hc.Int8(),
    "hashed": hc.Hashed(1 / 8),
    "sampled values": hc.Hashed(1 / 8, start="sample"),
    "tiles": hc.Hashed(1 / 2, tile=True),
    "pool": hc.Hashed(1 / 8, pool="all"),
    "magnitude": hc.Sparse(0.8),
    "wanda": hc.Sparse(0.8, importance="wanda"),
    "sparsegpt": hc.Sparse(0.8, importance="sparsegpt"),
    "corrected": hc.Sparse(0.8, correction=True),
    "codes": hc.Sparse(0.8, importance="sparsegpt", bits=4),
    "snip": hc.Sparse(0.8, importance="snip"),
    "grasp": hc.Sparse(0.8, importance="grasp", loss=lambda y, _: sum(each.square().sum() for each in y)),
    "synflow": hc.Sparse(0.8, importance="synflow"),
    "global": hc.Sparse(0.8, scope="global"),
    "auto": hc.Sparse("auto"),
    "codes that learn": hc.Sparse(0.8, bits=2, learn=True),
    "zeros as zeros": hc.Sparse(0, bits=2),
    "2:4": hc.Sparse(pattern="2:4"),
    "2:4 wanda": hc.Sparse(pattern="2:4", importance="wanda"),
    "2:4 sparsegpt": hc.Sparse(pattern="2:4", importance="sparsegpt"),
    "2:4 snip": hc.Sparse(pattern="2:4", importance="snip"),
    "low rank": hc.LowRank(rank=2),
    "energy": hc.LowRank(energy=0.9),
    "svd": hc.LowRank(energy=0.9, by="svd"),
    "pca": hc.LowRank(energy=0.9, by="pca"),
    "sampled": hc.Sampled(share=0.5),
    "wide": hc.Wide(0.9, classes=8),
}
SCORES = ("snip", "grasp", "synflow", "2:4 snip")


class Odd(nn.Module):
    """Layers side by side, so that what one computes does not silence another."""

    def __init__(self, zero: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.plain, self.constant, self.two = (nn.Linear(32, 24) for _ in range(3))
        self.row, self.many = nn.Linear(32, 1), nn.Linear(32, 40)
        with torch.no_grad():
            self.constant.weight.fill_(-0.37)
            self.two.weight.copy_(torch.where(self.two.weight > 0, 0.5, -0.25))  # fewer values than codes
            if zero:
                self.many.weight.zero_()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.plain(x), self.constant(x), self.two(x), self.row(x), self.many(x)


def compiled(model: nn.Module, method: Any, x: Tensor) -> hc.CompiledModel:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors is a no-op")
        return hc.compile(model.eval(), (x[:2],), method, [(x[:20],), (x[20:],)], progress=False)


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_zero_constant_one_row_and_few_values(name: str, zero: bool, tmp_path: Path) -> None:
    model, x = Odd(zero), torch.randn(40, 32)
    if zero and name in SCORES:
        with pytest.raises(hc.ConfigError, match=r"many\.weight"):
            compiled(model, METHODS[name], x)
        return
    found = compiled(model, METHODS[name], x)
    assert found.plan.encoded or found.plan.reshaping is not None
    outputs = found(x)
    assert all(bool(torch.isfinite(each[each != -torch.inf]).all()) for each in outputs)
    if zero and name != "wide":
        torch.testing.assert_close(outputs[4], model.many.bias.detach().expand(40, 40))
    found.save(tmp_path / "m.hc")
    again = hc.load(tmp_path / "m.hc")(x)
    assert all(torch.equal(a, b) for a, b in zip(again, outputs, strict=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", METHODS)
def test_nan_and_infinity_are_told_by_name(name: str, value: float) -> None:
    model, x = Odd(False), torch.randn(40, 32)
    model.two.weight.data[3, 5] = value
    with pytest.raises(hc.WeightError, match=r"two\.weight holds 1 NaN or infinite values"):
        compiled(model, METHODS[name], x)


@pytest.mark.parametrize("name", METHODS)
def test_empty_weights(name: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors is a no-op")
        model = nn.Sequential(nn.Linear(32, 0), nn.Linear(0, 24), nn.Linear(24, 24))
    x = torch.randn(40, 32)
    if name in SCORES:  # nothing flows through a layer without outputs
        with pytest.raises(hc.ConfigError, match=r"2\.weight|nothing flows"):
            compiled(model, METHODS[name], x)
        return
    found = compiled(model, METHODS[name], x)
    outputs = found(x)
    assert bool(torch.isfinite(outputs[outputs != -torch.inf]).all())
    assert not {decision.layer.name for decision in found.plan.encoded} & {"0", "1"}
