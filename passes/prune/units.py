"""What importance functions are given of each group's units: slices of the graph, activations, changes of the loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from hashcompile.core.errors import ConfigError, WeightError
from hashcompile.core.gradients import Loss
from hashcompile.core.layers import arguments, attribute
from hashcompile.core.method import Scope
from hashcompile.passes.channels import Axis, Group, Role
from hashcompile.passes.channels.readings import readings
from hashcompile.passes.channels.slices import slices
from hashcompile.passes.prune.importance import IMPORTANCES, Units
from hashcompile.passes.prune.slopes import changes

BATCH_NORM = torch.ops.aten.batch_norm.default


def scores_of(
    scope: Scope, groups: Sequence[Group], inside: Sequence[bool], importance: str, loss: Loss | None = None
) -> list[Tensor | None]:
    """(U,) float64 for each group that is `inside` the scope, None for the others. A group that has nothing to be
    scored by (no batch norm, no layer that reads it) is scored by l2.

    Raises ConfigError where calibration data is needed and missing, WeightError for weights that are not finite.
    """
    graph, batches, row = scope.graph, scope.batches, IMPORTANCES[importance]
    if row.needs in ("energies", "changes") and not batches:
        raise ConfigError(
            f"importance={importance!r} needs calibration data: give compile(..., calibration=...)"
        )
    read = readings(graph, groups, batches) if row.needs == "energies" else [()] * len(groups)
    moved = changes(graph, groups, batches, loss) if row.needs == "changes" else [None] * len(groups)
    norms = scales_of(graph)
    found: list[Tensor | None] = []
    for group, mine, seen, change in zip(groups, inside, read, moved, strict=True):
        if not mine:
            found.append(None)
            continue
        units = Units(
            produced=produced(graph, group),
            scales=tuple(
                own(attribute(graph, axis.parameter), axis, group.count)[:, 0]
                for axis in group.axes
                if axis.parameter in norms
            ),
            energies=tuple(each.energy.where(each.there, torch.nan) for each in seen),
            changes=change,
        )
        if not units.produced and not units.energies:  # a computed weight
            found.append(torch.zeros(group.count, dtype=torch.float64))
            continue
        bare = (row.needs == "scales" and not units.scales) or (
            row.needs == "energies" and not units.energies
        )
        found.append((IMPORTANCES["l2"] if bare else row).score(units))
    return found


def produced(graph: fx.GraphModule, group: Group) -> tuple[Tensor, ...]:
    """(U, K_i) for each weight that produces the group. Raises WeightError."""
    found = []
    for axis in group.of_role(Role.PRODUCER):
        weight = attribute(graph, axis.parameter).detach()
        if not bool(torch.isfinite(weight).all()):
            raise WeightError(f"parameter {axis.parameter!r} holds NaN or infinite values")
        found.append(own(weight, axis, group.count))
    return tuple(found)


def own(tensor: Tensor, axis: Axis, count: int) -> Tensor:
    """(U, K): the slices of each unit; NaN for a unit that has none."""
    there = torch.bincount(axis.unit[axis.unit >= 0], minlength=count) > 0
    return slices(tensor, axis, count).where(there[:, None], torch.nan)


def scales_of(graph: fx.GraphModule) -> set[str]:
    """The parameters that scale batch norms."""
    given = (arguments(node)["weight"] for node in graph.graph.nodes if node.target is BATCH_NORM)
    return {str(weight.target) for weight in given if weight is not None and weight.op == "get_attr"}
