"""One tolerance for a whole model, and what it makes of every group: what costs much and says little goes first.

Each group has a curve: what the outputs lose if it keeps k units, and what that saves. The curves' lower convex hulls
are walked down together, always where a further operation loses least (the allocation of Shoham & Gersho 1988,
"Efficient bit allocation for an arbitrary set of quantizers"), until the sum of losses reaches the tolerance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class Curve:
    """A group of U units in the order in which they are kept."""

    lost: Tensor  # (U + 1,) float64, not rising: squared relative error of the outputs with the first k units
    cost: Tensor  # (U,) float64, of each unit


class Step(NamedTuple):
    slope: float  # loss for what is saved
    curve: int
    start: int  # from so many units
    end: int  # to so many


def widths(curves: Sequence[Curve], tolerance: float) -> list[int]:
    """How many units each group keeps, so that the losses add up to no more than tolerance^2."""
    found = [len(curve.cost) for curve in curves]
    left = tolerance**2
    for step in sorted(step for number, curve in enumerate(curves) for step in hull(number, curve)):
        lost = curves[step.curve].lost
        loses = [float(lost[k] - lost[step.start]) for k in range(step.end, step.start)]
        fits = next((k for k, loss in enumerate(loses, step.end) if loss <= left), step.start)
        found[step.curve] = fits
        if fits > step.end:
            break
        left -= loses[0]
    return found


def hull(number: int, curve: Curve) -> Iterator[Step]:
    """The lower convex hull from all units down to none: steps of rising slope."""
    at = len(curve.cost)
    while at:
        saved = curve.cost[:at].flip(0).cumsum(0).flip(0)  # (at,) by keeping the first 0, 1, ... at - 1
        slopes = (curve.lost[:at] - curve.lost[at]) / saved.clamp_min(1e-300)
        end = int(slopes.argmin())
        yield Step(float(slopes[end]), number, at, end)
        at = end
