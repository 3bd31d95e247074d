"""What the user writes: `PruneChannels(amount=0.3)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hashcompile.core.errors import ConfigError
from hashcompile.core.gradients import Loss
from hashcompile.passes.channels.widths import check_multiple
from hashcompile.passes.prune.importance import IMPORTANCES


@dataclass(frozen=True)
class PruneChannels:
    """Remove the least important channels, heads and hidden units, and reshape the layers around them.

    A unit is what can be removed by itself: a channel, a head of attention, a group of a grouped convolution. Layers
    that share units, such as those of a residual stream, are one group. No tensor is ever left without channels.

    amount: from 0 to below 1. With scope "layer" the share of the units of every group, rounded to the nearest whole
        number, and of each kind of them where they differ in rows; with "global" the share of all units of all groups
        that may be cut, the least important first. "auto" lets `rule` decide for each group, and the plan's findings
        say what it saw; call after call, with training in between, it knows what it saw before.
    importance: how a unit is judged; see `importance.py`. "activation" and "taylor" need calibration data.
    scope: "layer" or "global". Across groups a unit counts in relation to the mean of its kind.
    round_to: the number of outputs of every layer that is cut becomes a multiple of this: units are kept that would
        have gone.
    rule: what "auto" goes by: "pq_index" (`core/pq_index.py`) or "column_norm" (`column_norm.py`).
    correction: let the channels that stay tell the next layers what those that went did, by least squares on
        calibration data: True or "fold" combines channels, "refit" solves for all weights of the next layers.
    attention: what goes of it: "heads", each as a whole; or "widths", the same entries of every head, those of queries
        together with those of keys.
    loss: for "taylor", from the outputs and the number of a calibration batch to a scalar, which may know labels;
        None looks at the outputs themselves.

    Raises ConfigError.
    """

    amount: float | Literal["auto"] = 0.3
    importance: str = "l2"
    scope: Literal["layer", "global"] = "layer"
    round_to: int = 1
    rule: Literal["pq_index", "column_norm"] = "pq_index"
    correction: bool | Literal["fold", "refit"] = False
    loss: Loss | None = None
    attention: Literal["heads", "widths"] = "heads"

    def __post_init__(self) -> None:
        number = isinstance(self.amount, (int, float)) and not isinstance(self.amount, bool)
        if self.amount != "auto" and (not number or not 0 <= self.amount < 1):
            raise self.error("amount", 'a share from 0 to below 1, such as 0.3, or "auto"')
        if self.importance not in IMPORTANCES:
            raise self.error("importance", f"one of {', '.join(IMPORTANCES)}")
        if self.scope not in ("layer", "global"):
            raise self.error("scope", '"layer" or "global"')
        if self.amount == "auto" and self.scope == "global":
            raise self.error("scope", '"layer" where amount="auto": the rule looks at every group by itself')
        check_multiple(self, self.round_to)
        if self.rule not in ("pq_index", "column_norm"):
            raise self.error("rule", '"pq_index" or "column_norm"')
        if self.correction not in (True, False, "fold", "refit"):
            raise self.error("correction", 'True, False, "fold" or "refit"')
        if self.attention not in ("heads", "widths"):
            raise self.error("attention", '"heads" or "widths"')
        if self.loss is not None and (not callable(self.loss) or self.importance != "taylor"):
            raise self.error("loss", 'a function of outputs and batch number, with importance="taylor"')

    def error(self, name: str, wanted: str) -> ConfigError:
        return ConfigError(f"PruneChannels({name}={getattr(self, name)!r}): {name} must be {wanted}")

    def __str__(self) -> str:
        amount = f"auto ({self.rule})" if self.amount == "auto" else f"{self.amount:.0%}"
        rounded = f", widths in multiples of {self.round_to}" if self.round_to > 1 else ""
        corrected = ", corrected" if self.correction else ""
        return f"prune {amount} by {self.importance}, {self.scope}{rounded}{corrected}"
