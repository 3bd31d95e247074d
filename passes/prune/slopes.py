"""What a unit does to the loss, to first order: sum of gradient times weight over all weights that produce it.

The gradients are those of `core/gradients.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from hashcompile.core.gradients import Loss, gradients_of
from hashcompile.core.layers import attribute
from hashcompile.core.signature import Batch
from hashcompile.passes.channels import Axis, Group, Role
from hashcompile.passes.channels.slices import slices


def changes(
    graph: fx.GraphModule, groups: Sequence[Group], batches: Sequence[Batch], loss: Loss | None = None
) -> list[Tensor]:
    """(B, U) float64 for each group. Raises CalibrationError for a loss that is no finite scalar."""
    axes = [group.of_role(Role.PRODUCER) for group in groups]
    names = sorted({axis.parameter for each in axes for axis in each})
    weights = {name: attribute(graph, name) for name in names}
    if not names:  # no channel can go, and a gradient is of something
        return [torch.zeros(len(batches), group.count, dtype=torch.float64) for group in groups]
    rows: list[list[Tensor]] = [[] for _ in groups]
    for number, batch in enumerate(batches):
        gradients = dict(
            zip(names, gradients_of(graph, list(weights.values()), batch, number, loss), strict=True)
        )
        for row, group, produced in zip(rows, groups, axes, strict=True):
            row.append(change(group.count, produced, weights, gradients))
    return [torch.stack(row) for row in rows]


def change(
    count: int, produced: Sequence[Axis], weights: dict[str, Tensor], gradients: dict[str, Tensor]
) -> Tensor:
    """(U,): sum of gradient times weight."""
    total = torch.zeros(count, dtype=torch.float64)
    for axis in produced:
        product = weights[axis.parameter].detach().double() * gradients[axis.parameter].double()
        total += slices(product, axis, count).sum(1)
    return total
