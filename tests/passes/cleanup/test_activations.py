"""Activations that are written out get their names; what only looks like one stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hashcompile.passes.cleanup.activations import name_activations

aten = torch.ops.aten

FORMS = {
    "silu": (lambda x: x * x.sigmoid(), aten.silu.default),
    "silu, turned": (lambda x: torch.sigmoid(x) * x, aten.silu.default),
    "hardsigmoid": (lambda x: functional.hardsigmoid(x) * x, aten.hardswish.default),
    "sixth last": (lambda x: x * functional.relu6(x + 3) / 6, aten.hardswish.default),
    "sixth of the gate": (lambda x: x * (functional.relu6(x + 3) / 6), aten.hardswish.default),
    "times a sixth": (lambda x: x * functional.hardtanh(x + 3, 0, 6) * (1 / 6), aten.hardswish.default),
    "clamp": (lambda x: (x + 3).clamp(0, 6) / 6 * x, aten.hardswish.default),
}
OTHERS = {
    "another gate": lambda x: x * (x + 1).sigmoid(),
    "another bound": lambda x: x * (x + 3).clamp(0, 5) / 6,
    "another shift": lambda x: x * functional.relu6(x + 2) / 6,
    "another factor": lambda x: x * functional.relu6(x + 3) / 5,
    "no sixth": lambda x: x * functional.relu6(x + 3),
    "double": lambda x: (x.double() * x.double().sigmoid()).float(),
}


class Of(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x.neg()) + 1


def traced(function: Callable[[Tensor], Tensor]) -> torch.fx.GraphModule:
    return torch.export.export(Of(function), (torch.randn(3, 5),), strict=False).module()


@pytest.mark.parametrize("form", FORMS)
def test_forms(form):
    function, target = FORMS[form]
    graph = traced(function)
    x = 4 * torch.randn(3, 5)
    wanted = graph(x)
    last = next(node for node in reversed(graph.graph.nodes) if node.op == "output").args[0][0].args[0].name
    assert name_activations(graph)
    (node,) = (node for node in graph.graph.nodes if node.target is target)
    assert node.name == last
    assert sum(node.op == "call_function" for node in graph.graph.nodes) == 3
    torch.testing.assert_close(graph(x), wanted, rtol=1e-6, atol=1e-6)
    assert not name_activations(graph)


@pytest.mark.parametrize("form", OTHERS)
def test_what_is_another_function_stays(form):
    graph = traced(OTHERS[form])
    before = [node.target for node in graph.graph.nodes]
    assert not name_activations(graph)
    assert [node.target for node in graph.graph.nodes] == before


def test_a_gate_with_other_readers_is_computed_for_them():
    def function(x: Tensor) -> Tensor:
        gate = x.sigmoid()
        return x * gate + gate

    graph = traced(function)
    x = torch.randn(3, 5)
    wanted = graph(x)
    assert name_activations(graph)
    assert {aten.silu.default, aten.sigmoid.default} <= {node.target for node in graph.graph.nodes}
    torch.testing.assert_close(graph(x), wanted)
