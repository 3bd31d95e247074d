"""Which units go: so many of each group, or the least important of all of them.

Units of one group need not be alike: a packed projection makes entries of queries with those of keys, two rows a
head, and entries of values, one row; or whole heads, and hidden units beside them. Whichever has more rows would seem
the more important, so units are only ranked among their kind, and each kind gives its share.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hashcompile.passes.channels import ChannelGroups, Group, Keeper, Role


def per_group(channels: ChannelGroups, scores: Sequence[Tensor | None], counts: Sequence[int]) -> Keeper:
    """So many of each group's units, of each kind in proportion; a group without scores stays whole."""
    keeper = channels.keeper()
    for position, (group, score, count) in enumerate(zip(channels.groups, scores, counts, strict=True)):
        if score is None:
            continue
        begun = asked = 0
        for units in kinds(group):
            begun += len(units)
            wanted = round(count * begun / group.count) - asked  # sums to `count`
            asked += wanted
            ranked = units[score[units].argsort(stable=True)].tolist()
            take(keeper, [(position, unit) for unit in ranked], wanted)
    return keeper


def overall(channels: ChannelGroups, scores: Sequence[Tensor | None], amount: float) -> Keeper:
    """The share `amount` of all units, scores being relative to the mean of their kind in their group."""
    keeper = channels.keeper()
    ranked = [
        (value, position, unit)
        for position, (group, score) in enumerate(zip(channels.groups, scores, strict=True))
        if score is not None
        for units in kinds(group)
        for unit, value in zip(units.tolist(), relative(score[units]).tolist(), strict=True)
    ]
    wanted = int(amount * len(ranked) + 0.5)
    take(keeper, [(position, unit) for _, position, unit in sorted(ranked)], wanted)
    return keeper


def kinds(group: Group) -> list[Tensor]:
    """The units of a group, those apart that have another number of rows in the layers that make them: the most that
    any of these has. That more layers make one unit than another, as where a residual stream widens, is no other kind.
    """
    rows = torch.zeros(group.count, dtype=torch.int64)
    for axis in group.of_role(Role.PRODUCER):
        rows = rows.maximum(torch.bincount(axis.unit[axis.unit >= 0], minlength=group.count))
    return [torch.nonzero(rows == each).flatten() for each in rows.unique()]


def relative(scores: Tensor) -> Tensor:
    return scores / scores.mean().clamp_min(1e-300)


def take(keeper: Keeper, ranked: Sequence[tuple[int, int]], wanted: int) -> None:
    for position, unit in ranked:
        if wanted <= 0:
            break
        wanted -= keeper.take(position, unit)
