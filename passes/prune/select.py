"""Which units go: so many of each group, or the least important of all of them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hashcompile.passes.channels import ChannelGroups, Keeper


def per_group(channels: ChannelGroups, scores: Sequence[Tensor | None], counts: Sequence[int]) -> Keeper:
    """So many of each group's units; a group without scores stays whole."""
    keeper = channels.keeper()
    for position, (score, count) in enumerate(zip(scores, counts, strict=True)):
        if score is not None:
            take(keeper, [(position, unit) for unit in score.argsort(stable=True).tolist()], count)
    return keeper


def overall(channels: ChannelGroups, scores: Sequence[Tensor | None], amount: float) -> Keeper:
    """The share `amount` of all units, scores being relative to the mean of their group."""
    keeper = channels.keeper()
    ranked = [
        (float(value), position, unit)
        for position, score in enumerate(scores)
        if score is not None
        for unit, value in enumerate((score / score.mean().clamp_min(1e-300)).tolist())
    ]
    wanted = int(amount * len(ranked) + 0.5)
    take(keeper, [(position, unit) for _, position, unit in sorted(ranked)], wanted)
    return keeper


def take(keeper: Keeper, ranked: Sequence[tuple[int, int]], wanted: int) -> None:
    for position, unit in ranked:
        if wanted <= 0:
            break
        wanted -= keeper.take(position, unit)
