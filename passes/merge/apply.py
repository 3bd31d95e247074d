"""Hash, join, average, remove.

Given:  %y = linear(%x, %w1: (500, 800)); %z = relu(%y); linear(%z, %w2: (10, 500))
Result: %y = linear(%x, %w1': (350, 800)); %z = relu(%y); linear(%z, %w2': (10, 350))

where rows of w1' stand for one unit or more, and columns of w2' are sums over these.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hashcompile.core.errors import ConfigError
from hashcompile.core.method import Outcome, Scope
from hashcompile.passes.channels import Group, Keeper, find_groups
from hashcompile.passes.channels.carry_out import Merged, Merges, carry_out, fixed_in, same_kind
from hashcompile.passes.channels.readings import readings
from hashcompile.passes.merge.average import averaged
from hashcompile.passes.merge.buckets import buckets, cosines
from hashcompile.passes.merge.config import MergeChannels
from hashcompile.passes.merge.fingerprint import HASHES, as_items, as_queries, collisions, random_planes
from hashcompile.passes.merge.homogeneous import homogeneous
from hashcompile.passes.merge.learnt import learnt_planes
from hashcompile.passes.merge.made import made
from hashcompile.passes.merge.representative import averaging, factors
from hashcompile.passes.merge.units import by_activations, by_weights, energies


def merge(config: MergeChannels, scope: Scope) -> Outcome:
    """Merge what is alike in the layers in scope. Raises ConfigError where activations are needed and missing."""
    if config.by == "activations" and not scope.batches:
        raise ConfigError(
            'MergeChannels(by="activations") needs calibration data: give compile(..., calibration=...)'
        )
    channels = find_groups(scope.graph, scope.example)
    keeper = channels.keeper()
    read = readings(scope.graph, channels.groups, scope.batches)
    merged: dict[int, Merged] = {}
    tensors: dict[str, Tensor] = {}
    fixed = fixed_in(scope)
    for position, (group, seen) in enumerate(zip(channels.groups, read, strict=True)):
        if not fixed.isdisjoint(group.layers) or (config.by == "activations" and not seen):
            continue
        ways = made(scope.graph, group)
        if not ways:  # a computed weight
            continue
        weights = by_weights(scope.graph, ways, group.count)
        units = by_activations(seen) if config.by == "activations" else weights
        energy = energies(seen, group.count)
        into = taken(keeper, position, energy, joined(config, units, group))
        if bool((into == torch.arange(group.count)).all()):
            continue
        bucket = into.unique(return_inverse=True)[1]
        average = averaging(bucket, energy)
        exact = homogeneous(scope.graph, ways)
        factor = factors(weights, average, bucket) if exact else torch.ones(group.count, dtype=torch.float64)
        full = torch.zeros(group.count, group.count, dtype=torch.float64)
        full[into.unique()] = average
        tensors |= averaged(scope.graph, group, ways, into, full)
        merged[position] = Merged(into, factor)
    how = "fold" if config.correction is True else config.correction or None
    kept, corrected = carry_out(scope, channels, keeper, how, Merges(merged, tensors))
    return Outcome(
        kept,
        tuple(each for each in channels.refused if each.layer in scope.layers),
        corrected=tuple(corrected),
    )


def joined(config: MergeChannels, units: Tensor, group: Group) -> list[list[int]]:
    """Buckets of `units: (U, K)` that the hashes propose and their likeness confirms."""
    target = group.count - int(config.amount * group.count + 0.5)
    met = proposals(config, units) & same_kind(group.axes, group.count)
    return buckets(cosines(units), met, target, config.similarity)


def proposals(config: MergeChannels, units: Tensor) -> Tensor:
    """(U, U) bool: which units meet in some table."""
    lifted = config.hash == "inner_product"
    items = as_items(units) if lifted else units
    draw = (items.shape[1], config.bits, config.tables, config.seed)
    planes = learnt_planes(items, *draw[1:]) if config.learnt else random_planes(*draw)
    hashed = HASHES["simhash" if lifted else config.hash]
    queries = hashed(as_queries(units), planes) if lifted else None
    return collisions(hashed(items, planes), queries) > 0


def taken(keeper: Keeper, group: int, energy: Tensor, members: Sequence[Sequence[int]]) -> Tensor:
    """(U,) the unit that stands for each one: the most active of its bucket, or itself where it cannot go."""
    into = torch.arange(sum(map(len, members)))
    for bucket in members:
        head = max(bucket, key=lambda unit: float(energy[unit]))
        for unit in bucket:
            if unit != head and keeper.take(group, unit):
                into[unit] = head
    return into
