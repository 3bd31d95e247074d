"""Int8: whole numbers and a row scale, stored as 8-bit codes whose bytes are the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import hashcompile as hc
import hashcompile_runtime as hcrt
from hashcompile.core.encoded import encoded_weights
from hashcompile.core.method import Compute
from tests.models import build
from tests.oracle import our_nodes, relative

BYTES = torch.arange(256).to(torch.uint8).view(torch.int8).double()  # what each code is as a signed byte


@pytest.mark.parametrize("compute", ["float", "int8"])
@pytest.mark.parametrize("name", ["mlp", "cnn", "attention", "mixed", "tied", "depthwise"])
def test_codes_scales_and_files(name: str, compute: Compute, tmp_path: Path) -> None:
    model, inputs = build(name)
    compiled = hc.compile(model, inputs(2), hc.Int8(), [inputs(32)], compute=compute)
    codes = encoded_weights(compiled.graph_module)
    assert codes and {str(d.config) for d in compiled.plan.encoded} == {"int8"}
    for code in codes.values():
        torch.testing.assert_close(
            code.codebook[0].double() * 127, BYTES.clamp(min=-127), rtol=1e-6, atol=1e-6
        )
        assert not (code.indices == 128).any(), "it would be -128 to a kernel that reads bytes"
    quality = compiled.report().quality
    assert quality is not None and quality.relative_error < 0.02
    for check in compiled.export_onnx(tmp_path / "m.onnx"):
        assert check.error <= check.tolerance
    assert {node.attributes["bits"] for node in our_nodes(tmp_path / "m.onnx")} == {8}
    compiled.save(tmp_path / "m.hc")
    loaded = hc.load(tmp_path / "m.hc")
    assert loaded.plan == compiled.plan
    x = inputs(3)
    with torch.no_grad():
        assert torch.equal(loaded(*x), compiled(*x))
    hcrt.session(tmp_path / "m.onnx")


def test_error_feedback_pays_and_kmeans_is_not_far_off() -> None:
    """Against rounding each weight, against 256 free entries, and against 4 bits, on inputs nobody has seen."""
    torch.manual_seed(0)
    model = nn.Linear(128, 96)
    mixing = torch.randn(128, 128) * torch.linspace(0.1, 3, 128)
    x, unseen = torch.randn(2000, 128) @ mixing, torch.randn(500, 128) @ mixing
    weight = model.weight.detach()
    scale = weight.abs().amax(1, keepdim=True) / 127
    with torch.no_grad():
        wanted = model(unseen)
        rounded = nn.functional.linear(unseen, (weight / scale).round() * scale, model.bias)

        def error(method: hc.Int8 | hc.Codebook) -> float:
            return relative(hc.compile(model, (x[:2],), method, [(x,)], compute="float")(unseen), wanted)

        uniform, free, coarse = map(error, (hc.Int8(), hc.Codebook(8), hc.Codebook(4)))
    assert uniform < 0.9 * relative(rounded, wanted)
    assert uniform < 3 * free and uniform < 0.2 * coarse
