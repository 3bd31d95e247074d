"""Transformers lose heads and hidden units in one call, keep their streams, and their file agrees."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import hashcompile as hc
from tests.channels.exact import captured
from tests.channels.test_removal import cut_again_and_again
from tests.channels.transformers import NETWORKS


@pytest.mark.parametrize("name", NETWORKS)
def test_removal_is_exact(name: str) -> None:
    make, inputs = NETWORKS[name]
    torch.manual_seed(0)
    assert cut_again_and_again(captured(make(), inputs)) > 0.4


@pytest.mark.parametrize("name", NETWORKS)
def test_cut_encoded_and_exported(name: str, tmp_path: Path) -> None:
    make, inputs = NETWORKS[name]
    torch.manual_seed(0)
    model = make().eval()
    method = [hc.PruneChannels(amount=0.3), hc.Codebook(bits=4)]
    compiled = hc.compile(model, (inputs,), method=method, compute="float")
    assert compiled.plan.reshaping is not None
    sizes = compiled.plan.reshaping
    assert sizes.after.parameters <= 0.85 * sizes.before.parameters
    assert len(compiled.export_onnx(tmp_path / "model.onnx")) == 2


def test_what_a_swin_loses() -> None:
    make, images = NETWORKS["swin"]
    plan = hc.compile(make().eval(), (images,), method=hc.PruneChannels(amount=0.5)).plan
    kept = plan.kept
    for block, width in (("stage1.0", 16), ("stage2.0", 32)):
        assert len(kept[f"{block}.attn.table"][1]) == 2  # of four heads
        assert len(kept[f"{block}.attn.qkv.weight"][0]) == 3 * width // 2
        assert len(kept[f"{block}.mlp.fc1.weight"][0]) == width
        assert len(kept[f"{block}.norm1.weight"][0]) == width
    assert plan.reshaping is not None
    reasons = {refusal.layer: refusal.reason for refusal in plan.reshaping.refused}
    assert re.fullmatch(
        r"layer_norm in stage1\.0\.norm1 \(transformers\.py:\d+\) mixes all of its channels", reasons["patch"]
    )
    assert reasons["head"] == "it leaves the model as an output"
