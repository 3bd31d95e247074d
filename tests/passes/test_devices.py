"""Every code goes where its module goes: to another device, for which `meta` stands, and to another dtype."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import hashcompile as hc

CODES: dict[str, Any] = {
    "codebook": hc.Codebook(4),
    "groups": hc.Codebook(4, "per_group", 16),
    "learnt": hc.Codebook(4, learn=True),
    "int8": hc.Int8(),
    "hashed": hc.Hashed(),
    "tiles": hc.Hashed(tile=True),
    "pool": hc.Hashed(pool="a"),
    "sparse": hc.Sparse(0.5),
    "sparse codes": hc.Sparse(0.8, bits=4),
    "sparse, learnt": hc.Sparse(0.8, bits=4, learn=True),
    "wide": hc.Wide(0.9, classes=16),
}


@pytest.mark.parametrize("name", CODES)
def test_a_compiled_graph_moves(name: str) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32)), torch.randn(8, 32)
    compiled = hc.compile(model, (x[:2],), CODES[name], [(x,)], compute="float", progress=False)
    graph, wanted = compiled.graph_module.train(), compiled(x).detach()
    doubled = graph.double()(x.double())
    assert doubled.dtype == torch.float64
    torch.testing.assert_close(doubled.float(), wanted, rtol=1e-4, atol=1e-5)
    doubled.sum().backward()
    assert all(value.grad is not None for value in graph.parameters() if value.requires_grad)
    moved = graph.to("meta")(x.double().to("meta"))
    assert moved.device.type == "meta" and moved.shape == wanted.shape


@pytest.mark.parametrize("importance", ["magnitude", "movement"])
def test_a_pruning_schedule_goes_on_elsewhere(importance: Any) -> None:
    layer = nn.Linear(8, 8)
    here = hc.PruningSchedule(layer, 0.5, end=4, importance=importance)
    layer.weight.grad = torch.ones(8, 8)
    here.step()
    there = hc.PruningSchedule(nn.Linear(8, 8, device="meta"), 0.5, end=4, importance=importance)
    state = here.state_dict()
    there.load_state_dict(state)
    held = [*there.masks.values(), *there._scores.values(), *there._values.values()]
    assert held and all(each.device.type == "meta" for each in held)
    assert all(mask.device.type == "cpu" for mask in state["masks"].values())
