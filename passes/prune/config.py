"""What the user writes: `PruneChannels(amount=0.3)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hashcompile.core.errors import ConfigError
from hashcompile.passes.prune.importance import IMPORTANCES


@dataclass(frozen=True)
class PruneChannels:
    """Remove the least important channels, heads and hidden units, and reshape the layers around them.

    A unit is what can be removed by itself: a channel, a head of attention, a group of a grouped convolution. Layers
    that share units, such as those of a residual stream, are one group. No tensor is ever left without channels.

    amount: from 0 to below 1. With scope "layer" the share of the units of every group, rounded to the nearest whole
        number; with "global" the share of all units of all groups that may be cut, the least important first.
    importance: how a unit is judged; see `importance.py`.
    scope: "layer" or "global". Across groups a unit counts in relation to the mean of its group.
    round_to: the number of outputs of every layer that is cut becomes a multiple of this: units are kept that would
        have gone.

    Raises ConfigError.
    """

    amount: float = 0.3
    importance: str = "l2"
    scope: Literal["layer", "global"] = "layer"
    round_to: int = 1

    def __post_init__(self) -> None:
        number = isinstance(self.amount, (int, float)) and not isinstance(self.amount, bool)
        if not number or not 0 <= self.amount < 1:
            raise ConfigError(
                f"PruneChannels(amount={self.amount!r}): amount must be a share from 0 to below 1, such as 0.3"
            )
        if self.importance not in IMPORTANCES:
            raise ConfigError(
                f"PruneChannels(importance={self.importance!r}): importance must be one of {', '.join(IMPORTANCES)}"
            )
        if self.scope not in ("layer", "global"):
            raise ConfigError(f'PruneChannels(scope={self.scope!r}): scope must be "layer" or "global"')
        if isinstance(self.round_to, bool) or not isinstance(self.round_to, int) or self.round_to < 1:
            raise ConfigError(
                f"PruneChannels(round_to={self.round_to!r}): round_to must be a whole number from 1 on, such as 8"
            )

    def __str__(self) -> str:
        rounded = f", widths in multiples of {self.round_to}" if self.round_to > 1 else ""
        return f"prune {self.amount:.0%} by {self.importance}, {self.scope}{rounded}"
