"""Methods one after another, in either order: what compiles is saved, loaded and exported, and computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc

WIDE = hc.Wide(0.9, classes=16)
POOL = hc.Hashed(1 / 4, pool="all")
STRUCTURES: dict[str, Any] = {
    "prune": hc.PruneChannels(0.3),
    "merge": hc.MergeChannels(0.3),
    "interpolative": hc.Interpolative(0.1),
    "low rank": {"*": hc.LowRank(rank=16), "4": None},
    "sampled": hc.Sampled(share=0.5),
}
CODES: dict[str, Any] = {  # of the first, the second and the last layer, or of their factors
    "tables": {"0*": hc.Codebook(4), "2*": hc.Int8(), "4": WIDE},
    "shared": {"0*": POOL, "2*": POOL, "4": hc.Sparse(0.5, bits=4)},
    "zeros": {"0*": hc.Sparse(0.5), "2*": hc.Sparse(pattern="2:4"), "4": hc.Codebook(2, learn=True)},
}


def network() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    layers = [nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 64)]
    return nn.Sequential(*layers).eval(), torch.randn(32, 32)


def compiled_and_back(stages: list[Any], folder: Path) -> hc.CompiledModel:
    """Saved, loaded and exported."""
    model, x = network()
    compiled = hc.compile(model, (x[:2],), stages, [(x,)], compute="float")
    reshaping = compiled.plan.reshaping
    assert reshaping is not None and reshaping.after.macs < reshaping.before.macs
    compiled.save(folder / "m.hc")
    assert torch.equal(hc.load(folder / "m.hc")(x), compiled(x))
    assert len(compiled.export_onnx(folder / "m.onnx")) == 2, "verified, with our library and without"
    return compiled


def test_units_are_pruned_then_merged_then_interpolated_then_encoded(tmp_path: Path) -> None:
    structures = [STRUCTURES[name] for name in ("prune", "merge", "interpolative")]
    compiled = compiled_and_back([*structures, CODES["tables"]], tmp_path)
    widths = [
        hc.compile(network()[0], (network()[1][:2],), structures[:count], [(network()[1],)]).plan.kept[
            "0.weight"
        ][0]
        for count in (1, 2, 3)
    ]
    kept = compiled.plan.kept["0.weight"][0]
    assert 48 > len(widths[0]) > len(widths[1]) >= len(widths[2]) and torch.equal(kept, widths[2])
    assert set(kept.tolist()) <= set(widths[1].tolist()) <= set(widths[0].tolist())


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_what_a_structure_leaves_is_encoded(structure: str, codes: str, tmp_path: Path) -> None:
    compiled = compiled_and_back([STRUCTURES[structure], CODES[codes]], tmp_path)
    assert len(compiled.plan.encoded) == len(compiled.plan), compiled.plan


@pytest.mark.parametrize(
    "code",
    [
        hc.Codebook(4),
        hc.Codebook(2, learn=True),
        hc.Hashed(1 / 4),
        hc.Sparse(0.5),
        hc.Sparse(0.5, bits=4),
        WIDE,
    ],
    ids=str,
)
def test_what_is_encoded_stays_beside_a_structure(code: Any, tmp_path: Path) -> None:
    stages = [{"4": code}, hc.PruneChannels(0.3), {"0": hc.LowRank(rank=6), "2": hc.Sampled(share=0.5)}]
    compiled = compiled_and_back(stages, tmp_path)
    assert [decision.layer.name for decision in compiled.plan.encoded] == ["4"]
