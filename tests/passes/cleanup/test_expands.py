"""Expansions in front of operators that broadcast are dropped; those that make a size stay."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
from hashcompile.capture import capture
from hashcompile.passes.cleanup.expands import EXPANDS, drop_expands

DROPPED = {
    "as": lambda x, g: x * g.expand_as(x),
    "sizes": lambda x, g: x + g.expand(x.size()),
    "a mask": lambda x, g: x.masked_fill((g > 0).expand_as(x), 0.5),
    "of three": lambda x, g: torch.where((g > 0).expand_as(x), x, g),
    "more dims": lambda x, g: x - g[:1, 0].expand_as(x),
    "twice": lambda x, g: (e := g.expand_as(x)) * x + x / e,
}
STAYS = {
    "an output": lambda x, g: g.expand_as(x),
    "no other of that size": lambda x, g: g.expand_as(x) * g,
    "itself": lambda x, g: (e := g.expand_as(x)) * e,
    "summed": lambda x, g: x * (e := g.expand_as(x)) + e.sum(1, keepdim=True),
    "one number": lambda x, g: x.half() * g.sum().expand_as(x),
}


class Of(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return self.function(x * 2, gate * 2)


@pytest.mark.parametrize("form", [*DROPPED, *STAYS])
def test_forms(form: str) -> None:
    torch.manual_seed(0)
    graph = capture(Of({**DROPPED, **STAYS}[form]), (torch.randn(2, 3, 4, 5), torch.randn(2, 1, 4, 5))).graph
    x, gate = torch.randn(3, 3, 4, 5), torch.randn(3, 1, 4, 5)
    wanted = graph(x, gate)
    assert drop_expands(graph) == (form in DROPPED)
    assert any(node.target in EXPANDS for node in graph.graph.nodes) == (form in STAYS)
    got = graph(x, gate)
    assert got.dtype == wanted.dtype
    assert torch.equal(got, wanted)
    assert not drop_expands(graph)


def test_both_operands_keep_the_size() -> None:
    graph = capture(
        Of(lambda x, g: x[:, :1].expand_as(x) * g.expand_as(x)), (torch.randn(2, 3, 4), torch.randn(2, 1, 4))
    ).graph
    assert drop_expands(graph)
    assert graph(torch.randn(2, 3, 4), torch.randn(2, 1, 4)).shape == (2, 3, 4)


class Gated(nn.Module):
    """A gate of one channel, and a mask of none, spread over all channels of a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.gate, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 1, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.a(x)
        y = y * self.gate(y).sigmoid().expand_as(y)
        return self.out(y * mask.expand(y.size()))


def test_channels_under_them_can_go() -> None:
    x = torch.randn(2, 3, 6, 6), torch.ones(2, 1, 6, 6)
    kept = hc.compile(Gated(), x, hc.PruneChannels(amount=0.5)).plan.kept
    assert len(kept["a.weight"][0]) == len(kept["gate.weight"][1]) == len(kept["out.weight"][1]) == 4
