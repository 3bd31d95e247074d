"""What the user writes: `Interpolative(tolerance=0.2)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hashcompile.core.errors import ConfigError
from hashcompile.passes.channels.widths import check_multiple


@dataclass(frozen=True)
class Interpolative:
    """Keep the fewest units from which the others can be told, and let the next layers tell them.

    tolerance: what may be lost of the model's outputs, |y - y'| / |y|, from 0 to below 1; it is predicted, and what
        comes of it depends on how errors of several layers meet. It alone decides the width of every layer: units go
        where they save the most operations for what they lose. No labels are needed, but calibration data is.
    correction: True or "fold" folds the least-squares combinations into the next layers; "refit" goes on to solve for
        all of their weights.
    round_to: the number of outputs of every layer that is cut becomes a multiple of this: units are kept that would
        have gone.

    Raises ConfigError.
    """

    tolerance: float = 0.2
    correction: bool | Literal["fold", "refit"] = True
    round_to: int = 1

    def __post_init__(self) -> None:
        number = isinstance(self.tolerance, (int, float)) and not isinstance(self.tolerance, bool)
        if not number or not 0 <= self.tolerance < 1:
            raise ConfigError(
                f"Interpolative(tolerance={self.tolerance!r}): tolerance must be a relative error from 0 to below 1, "
                "such as 0.2"
            )
        if self.correction not in (True, False, "fold", "refit"):
            raise ConfigError(
                f'Interpolative(correction={self.correction!r}): correction must be True, False, "fold" or "refit"'
            )
        check_multiple(self, self.round_to)

    def __str__(self) -> str:
        rounded = f", widths in multiples of {self.round_to}" if self.round_to > 1 else ""
        return f"interpolate within {self.tolerance:g}{rounded}"
