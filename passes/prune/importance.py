"""How much a unit matters: one number each, the larger the more. Only the order within a group means something."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from hashcompile.core.layers import attribute
from hashcompile.core.method import Scope
from hashcompile.passes.channels import Group, Role

Importance = Callable[[Group, Scope], Tensor]  # -> (count,) float64


def weight_norm(group: Group, scope: Scope, power: int) -> Tensor:
    """The l1 or l2 norm of all weights that make a unit (Li et al., Pruning filters for efficient ConvNets, 2017)."""
    total = torch.zeros(group.count, dtype=torch.float64)
    for axis in group.of_role(Role.PRODUCER):
        weight: Tensor = attribute(scope.graph, axis.parameter).detach().double()
        others = [dim for dim in range(weight.ndim) if dim != axis.dim]
        sums = weight.abs().pow(power).sum(others)
        mine = axis.unit >= 0
        total.index_add_(0, axis.unit[mine], sums[mine])
    return total.pow(1 / power)


IMPORTANCES: dict[str, Importance] = {
    "l1": partial(weight_norm, power=1),
    "l2": partial(weight_norm, power=2),
}
