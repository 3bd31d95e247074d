"""What a unit does to the loss, to first order: sum of gradient times weight over all weights that produce it.

Without a `loss` of the user's it is the model's own outputs y that are looked at, in a random direction s of +1 and -1
for each sample: the loss is s . y. The expected square of its change is the squared first-order change of all outputs,
E (s . J w)^2 = |J w|^2, so no labels are needed (the estimator of Hutchinson 1989).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from hashcompile.core.errors import CalibrationError
from hashcompile.core.layers import attribute
from hashcompile.core.signature import Batch
from hashcompile.passes.channels import Axis, Group, Role
from hashcompile.passes.channels.slices import slices

Loss = Callable[[Any, int], Tensor]  # (outputs, number of the calibration batch) -> a scalar


def changes(
    graph: fx.GraphModule, groups: Sequence[Group], batches: Sequence[Batch], loss: Loss | None = None
) -> list[Tensor]:
    """(B, U) float64 for each group. Raises CalibrationError for a loss that is no finite scalar."""
    axes = [group.of_role(Role.PRODUCER) for group in groups]
    names = sorted({axis.parameter for each in axes for axis in each})
    weights = {name: attribute(graph, name) for name in names}
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


def gradients_of(
    graph: fx.GraphModule, weights: Sequence[Tensor], batch: Batch, number: int, loss: Loss | None
) -> Sequence[Tensor]:
    before = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            outputs = graph(*(value.clone() for value in batch))
            value = loss(outputs, number) if loss else in_a_random_direction(outputs, number)
            if not isinstance(value, Tensor) or value.numel() != 1 or not bool(torch.isfinite(value)):
                raise CalibrationError(
                    f"calibration batch {number}: the loss is {value!r}, wanted a finite tensor of one element"
                )
            found = torch.autograd.grad(value.reshape(()), weights, allow_unused=True)
    finally:
        for weight, kept in zip(weights, before, strict=True):
            weight.requires_grad_(kept)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]


def in_a_random_direction(outputs: Any, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    total = torch.zeros(())
    for leaf in pytree.tree_leaves(outputs):
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            signs = torch.randint(0, 2, leaf.shape, generator=draw) * 2 - 1
            total = total + (leaf * signs).sum()
    return total
