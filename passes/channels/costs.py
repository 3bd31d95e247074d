"""What a unit costs: multiply-accumulate operations of the weights that make it and of those that read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from hashcompile.core.layers import CONSUMERS, Kind, attribute
from hashcompile.core.signature import Batch
from hashcompile.passes.channels.groups import Group
from hashcompile.passes.channels.parameters import Role


def unit_costs(graph: fx.GraphModule, groups: Sequence[Group], example: Batch) -> list[Tensor]:
    """(U,) float64 for each group, on the samples of `example`. A weight that no layer multiplies with, such as an
    embedding, counts once: it is memory at least.

    Products of units of two groups are counted with both: this is the cost of one unit beside all others.
    """
    uses = Uses(graph)
    with torch.no_grad():
        uses.run(*(value.clone() for value in example), enable_io_processing=False)
    found = []
    for group in groups:
        cost = torch.zeros(group.count, dtype=torch.float64)
        for axis in group.axes:
            if axis.role in (Role.PRODUCER, Role.CONSUMER):
                each = attribute(graph, axis.parameter).numel() / len(axis.unit)
                entries = torch.bincount(axis.unit[axis.unit >= 0], minlength=group.count)
                cost += uses.counts.get(axis.parameter, 1) * each * entries
        found.append(cost)
    return found


class Uses(fx.Interpreter):
    """How often each weight is multiplied with: positions of the outputs, or of the inputs of a transposed
    convolution."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.counts: dict[str, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        kind, position = CONSUMERS.get(n.target, (Kind.EMBEDDING, 0))
        weight = n.args[position] if n.args else None
        if kind is not Kind.EMBEDDING and isinstance(weight, fx.Node) and weight.op == "get_attr":
            shape = attribute(self.module, str(weight.target)).shape
            seen = self.env[n.args[0]] if kind is Kind.CONV_TRANSPOSE else value  # type: ignore[index]
            times = seen.numel() // max(1, shape[0])
            self.counts[str(weight.target)] = self.counts.get(str(weight.target), 0) + times
        return value
