"""Hash, join, average, remove.

Given:  %y = linear(%x, %w1: (500, 800)); %z = relu(%y); linear(%z, %w2: (10, 500))
Result: %y = linear(%x, %w1': (350, 800)); %z = relu(%y); linear(%z, %w2': (10, 350))

where rows of w1' stand for one unit or more, and columns of w2' are sums over these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from hashcompile.core.errors import ConfigError
from hashcompile.core.lsh import HASHES, as_items, as_queries, collisions, random_planes
from hashcompile.core.method import Outcome, Scope
from hashcompile.passes.channels import Group, Keeper, find_groups
from hashcompile.passes.channels.carry_out import (
    Merged,
    Merges,
    carry_out,
    fixed_in,
    refused_in,
    same_kind,
    untold,
)
from hashcompile.passes.channels.readings import readings
from hashcompile.passes.channels.widths import round_widths
from hashcompile.passes.merge.average import averaged
from hashcompile.passes.merge.buckets import buckets, cosines, losses
from hashcompile.passes.merge.config import MergeChannels
from hashcompile.passes.merge.homogeneous import homogeneous
from hashcompile.passes.merge.learnt import learnt_planes
from hashcompile.passes.merge.made import Made, made
from hashcompile.passes.merge.representative import averaging, factors
from hashcompile.passes.merge.units import by_activations, by_weights, worths


def merge(config: MergeChannels, scope: Scope) -> Outcome:
    """Merge what is alike in the layers in scope. Raises ConfigError where activations are needed and missing."""
    if config.by == "activations" and not scope.batches:
        raise ConfigError(
            'MergeChannels(by="activations") needs calibration data: give compile(..., calibration=...)'
        )
    channels = find_groups(scope.graph, scope.example)
    stay = untold(scope.graph, channels)
    found = {at: plan for at, plan in planned(config, scope, channels.groups).items() if at not in stay}
    keeper = channels.keeper()
    scores: list[Tensor | None] = [None] * len(channels.groups)
    for position, plan in found.items():
        scores[position] = plan.take(keeper, position)
    round_widths(channels, keeper, scores, config.round_to)
    merged: dict[int, Merged] = {}
    tensors: dict[str, Tensor] = {}
    for position, plan in found.items():
        if bool((removed := keeper.removed[position]).any()):
            merged[position], new = plan.merged(scope.graph, channels.groups[position], removed)
            tensors |= new
    how = "fold" if config.correction is True else config.correction or None
    refused = refused_in(scope, channels)
    for position, why in stay.items():
        if fixed_in(scope).isdisjoint(channels.groups[position].layers):
            refused += why
    outcome = carry_out(scope, channels, keeper, how, Merges(merged, tensors))
    return replace(outcome, refused=tuple(refused))


def planned(config: MergeChannels, scope: Scope, groups: Sequence[Group]) -> dict[int, Merging]:
    """The buckets of every group that may be merged, by position."""
    read = readings(scope.graph, groups, scope.batches)
    fixed = fixed_in(scope)
    found = {}
    for position, (group, seen) in enumerate(zip(groups, read, strict=True)):
        if not fixed.isdisjoint(group.layers) or (config.by == "activations" and not seen):
            continue
        if not (ways := made(scope.graph, group)):  # a computed weight
            continue
        weights = by_weights(scope.graph, ways, group.count)
        worth = worths(scope.graph, group, seen, weights)
        units = by_activations(seen) if config.by == "activations" else weights
        similarity = cosines(units)
        loss = losses(similarity, worth)
        allowed = proposals(config, units) & same_kind(group.axes, group.count)
        target = group.count - int(config.amount * group.count + 0.5)
        joined = buckets(loss, allowed & (similarity >= config.similarity), target)
        told = config.by == "activations" or homogeneous(scope.graph, ways)
        found[position] = Merging(ways, units if told else None, worth, loss, joined)
    return found


@dataclass(frozen=True)
class Merging:
    """What is to become of one group."""

    ways: Sequence[Made]
    units: Tensor | None  # (U, K), where one that is a multiple of another is so behind the activation, too
    worth: Tensor  # (U,)
    loss: Tensor  # (U, U)
    buckets: Sequence[Sequence[int]]

    def heads(self) -> Tensor:
        """(U,) the unit that stands for each one: that of the greatest worth in its bucket."""
        into = torch.arange(len(self.worth))
        for bucket in self.buckets:
            into[list(bucket)] = max(bucket, key=lambda unit: float(self.worth[unit]))
        return into

    def take(self, keeper: Keeper, position: int) -> Tensor:
        """Remove all but the heads; (U,), how much is lost with each unit."""
        into = self.heads()
        for unit in torch.nonzero(into != torch.arange(len(into))).flatten().tolist():
            keeper.take(position, unit)
        return self.loss[torch.arange(len(into)), into]

    def merged(
        self, graph: fx.GraphModule, group: Group, removed: Tensor
    ) -> tuple[Merged, dict[str, Tensor]]:
        """Representatives, of those that were really removed."""
        into = torch.where(removed, self.heads(), torch.arange(group.count))
        bucket = into.unique(return_inverse=True)[1]
        average = averaging(bucket, self.worth)
        ones = torch.ones(group.count, dtype=torch.float64)
        factor = ones if self.units is None else factors(self.units, average, bucket)
        full = torch.zeros(group.count, group.count, dtype=torch.float64)
        full[into.unique()] = average
        return Merged(into, factor), averaged(graph, group, self.ways, into, full)


def proposals(config: MergeChannels, units: Tensor) -> Tensor:
    """(U, U) bool: which units meet in some table."""
    lifted = config.hash == "inner_product"
    items = as_items(units) if lifted else units
    draw = (items.shape[1], config.bits, config.tables, config.seed)
    planes = learnt_planes(items, *draw[1:]) if config.learnt else random_planes(*draw)
    hashed = HASHES["simhash" if lifted else config.hash]
    queries = hashed(as_queries(units), planes) if lifted else None
    return collisions(hashed(items, planes), queries) > 0
