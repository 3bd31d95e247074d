"""What the user writes: `Interpolative(tolerance=0.2)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hashcompile.core.errors import ConfigError


@dataclass(frozen=True)
class Interpolative:
    """Keep the fewest units of every group from which the others can be told, and let the next layers tell them.

    tolerance: what may be lost of a group's activations at the inputs of the layers that read it, |Z - Z'| / |Z|, from
        0 to below 1. It alone decides the width of every layer. No labels are needed, but calibration data is.
    correction: True or "fold" folds the least-squares combinations into the next layers; "refit" goes on to solve for
        all of their weights.

    Raises ConfigError.
    """

    tolerance: float = 0.2
    correction: bool | Literal["fold", "refit"] = True

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

    def __str__(self) -> str:
        return f"interpolate within {self.tolerance:g}"
