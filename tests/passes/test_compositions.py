"""Codes of factors: every low-rank front with every code behind it, kept, loaded and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
from hashcompile.core.encoded import encoded_weights

FRONTS: dict[str, Any] = {
    "linear": hc.LowRank(rank=12),
    "tucker": hc.LowRank(rank=12, conv="tucker"),
    "spatial": hc.LowRank(rank=10, conv="spatial"),
    "sampled": hc.Sampled(share=0.5),
}
CODES: dict[str, Any] = {
    "codebook": hc.Codebook(4),
    "learnt": hc.Codebook(4, learn=True),
    "int8": hc.Int8(),
    "hashed": hc.Hashed(1 / 4),
    "tiles": hc.Hashed(1 / 2, tile=True),
    "pool": hc.Hashed(1 / 4, pool="all"),
    "sparse": hc.Sparse(0.5),
    "2:4": hc.Sparse(pattern="2:4"),
    "sparse codes": hc.Sparse(0.5, bits=3),
    "sparse learnt": hc.Sparse(0.5, bits=3, learn=True),
}


def network(front: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    if front in ("linear", "sampled"):
        return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64)).eval(), torch.randn(64, 64)
    model = nn.Sequential(nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 40, 3))
    return model.eval(), torch.randn(16, 32, 6, 6)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("front", FRONTS)
def test_factors_are_encoded(front: str, code: str, tmp_path: Path) -> None:
    model, x = network(front)
    method = [FRONTS[front], CODES[code]]
    compiled = hc.compile(model, (x[:2],), method, [(x,)], compute="float", progress=False)
    codes = encoded_weights(compiled.graph_module)
    assert codes, "nothing was encoded"
    if front != "sampled":  # which leaves a layer one product
        assert any(
            ".up" in name or ".down" in name or ".core" in name or ".first" in name for name in codes
        ), codes
    compiled.save(tmp_path / "m.hc")
    again = hc.load(tmp_path / "m.hc")
    with torch.no_grad():
        assert torch.equal(again(x), compiled(x))
        assert torch.isfinite(compiled(x)).all()
    checks = compiled.export_onnx(tmp_path / "m.onnx", show=False)
    assert all(check.error <= check.tolerance for check in checks)
