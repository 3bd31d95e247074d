"""Widths that the target's kernels like: units come back until every layer that is cut has a multiple of outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hashcompile.core.errors import ConfigError
from hashcompile.passes.channels.groups import Axis, ChannelGroups, Group, Keeper
from hashcompile.passes.channels.parameters import Role


def check_multiple(config: object, multiple: object) -> None:
    """Raise ConfigError for a `round_to` that no width can be a multiple of."""
    if isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1:
        raise ConfigError(
            f"{type(config).__name__}(round_to={multiple!r}): round_to must be a whole number from 1 on, such as 8"
        )


def round_widths(
    channels: ChannelGroups, keeper: Keeper, scores: Sequence[Tensor | None], multiple: int
) -> None:
    """Keep the best of what would go, until every layer that is cut has a multiple of outputs. Tables are none.

    scores: (U,) for each group, the higher the sooner a unit is kept; None where nothing goes. What is kept for one
    layer may take another one off its multiple; since units only come back, this ends.
    """
    changed = multiple > 1
    while changed:
        changed = False
        for position, (group, score) in enumerate(zip(channels.groups, scores, strict=True)):
            for axis in wide(group):
                while (units := going(axis.unit, keeper.removed[position])).numel():
                    width = len(axis.unit) - len(units)
                    if width % multiple == 0:
                        break
                    assert score is not None
                    best = int(units[score[units].argmax()])
                    keeper.give_back(position, best)
                    changed = True


def wide(group: Group) -> list[Axis]:
    """Those that make the group, but for tables, whose widths no kernel cares for: what gives a unit one number where
    another layer gives it several, and all read several. So relative positions are looked up, one number a head."""
    made = group.of_role(Role.PRODUCER)
    given = [entries(axis, group.count) for axis in made]
    read = [entries(axis, group.count) for axis in group.of_role(Role.CONSUMER)]
    most = torch.stack(given).amax(0)
    fewest = torch.stack([most, *(each.where(each > 0, most) for each in read)]).amin(0)
    return [axis for axis, own in zip(made, given, strict=True) if bool(((own > 1) | (own == fewest)).any())]


def entries(axis: Axis, count: int) -> Tensor:
    """(U,): how many indices of an axis belong to each of `count` units."""
    return torch.bincount(axis.unit[axis.unit >= 0], minlength=count)


def going(unit: Tensor, removed: Tensor) -> Tensor:
    """The units of the indices of an axis that go."""
    return unit[(unit >= 0) & removed[unit.clamp_min(0)]] if len(removed) else torch.empty(0)
