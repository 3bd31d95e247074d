"""Scores that are overwritten in front of a softmax become sums; what is not surely the same stays."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hashcompile.passes.cleanup.masked_scores import add_masks

aten = torch.ops.aten

FORMS = {
    "fill": lambda s, m: s.masked_fill(m, -math.inf).softmax(-1),
    "fill, finite": lambda s, m: s.masked_fill(m, -1e9).softmax(2),
    "where": lambda s, m: torch.where(m, s, torch.tensor(-1e10)).softmax(-1),
    "where, turned": lambda s, m: torch.where(m, -1e30, s).softmax(-1),
}
OTHERS = {
    "too small": lambda s, m: s.masked_fill(m, -1e4).softmax(-1),
    "not a number": lambda s, m: s.masked_fill(m, math.nan).softmax(-1),
    "positive": lambda s, m: s.masked_fill(m, 1e9).softmax(-1),
    "another dim": lambda s, m: s.masked_fill(m, -math.inf).softmax(1),
    "no softmax": lambda s, m: s.masked_fill(m, -1e9).exp(),
    "read again": lambda s, m: (t := s.masked_fill(m, -1e9)).softmax(-1) + t,
    "wider": lambda s, m: s[:, :1].masked_fill(m, -math.inf).softmax(-1),
    "double": lambda s, m: s.double().masked_fill(m, -1e9).softmax(-1),
}


class Of(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, scores, which):
        return self.function(scores * 2, which)


def traced(function):
    g = torch.Generator().manual_seed(0)
    scores, which = torch.randn(2, 3, 5, generator=g), torch.rand(2, 3, 5, generator=g) > 0.5
    which[:, :, 0], which[:, :, 1] = True, False  # something is seen in every row, however it is meant
    return torch.export.export(Of(function), (scores, which)).module(), (scores, which)


@pytest.mark.parametrize("form", FORMS)
def test_forms(form):
    graph, inputs = traced(FORMS[form])
    wanted = graph(*inputs)
    assert add_masks(graph)
    targets = [node.target for node in graph.graph.nodes]
    assert aten.add.Tensor in targets and aten.masked_fill.Scalar not in targets
    torch.testing.assert_close(graph(*inputs), wanted, rtol=0, atol=0)
    assert not add_masks(graph)


@pytest.mark.parametrize("form", OTHERS)
def test_others_stay(form):
    graph, inputs = traced(OTHERS[form])
    wanted = graph(*inputs)
    assert not add_masks(graph)
    torch.testing.assert_close(graph(*inputs), wanted, rtol=0, atol=0, equal_nan=True)


def test_layers_share_their_mask():
    def twice(scores, which):
        first = scores.masked_fill(which, -math.inf).softmax(-1)
        return (scores + first).masked_fill(which, -math.inf).softmax(-1)

    graph, inputs = traced(twice)
    wanted = graph(*inputs)
    assert add_masks(graph)
    assert [node.target for node in graph.graph.nodes].count(aten.where.Scalar) == 1
    torch.testing.assert_close(graph(*inputs), wanted, rtol=0, atol=0)
