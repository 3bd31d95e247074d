"""What the user writes: `MergeChannels(amount=0.3)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hashcompile.core.errors import ConfigError
from hashcompile.passes.channels.widths import check_multiple

MOST_BITS = 62  # of a bucket's number in an int64


@dataclass(frozen=True)
class MergeChannels:
    """Let one unit stand for several that are alike, and sum the columns with which the next layers read them.

    amount: share of the units of every group that are to go at the most, 0 to below 1. Those go which the layers that
        read them miss least.
    similarity: the least likeness of units in one bucket, -1 to 1: the cosine of what they are told by.
    by: what units are told by: "weights", those that compute them, with biases and batch norms; or "activations", at
        the inputs of the layers that read them, which needs calibration data.
    hash: "simhash" or "cross_polytope", for angles; or "inner_product", the asymmetric transform, for which long units
        attract the others.
    bits: hyperplanes (coordinates, for the cross-polytope) in a table; the more, the more alike are units that meet.
    tables: how many tables; units that meet in one of them may be merged.
    learnt: hyperplanes learnt from each layer's units, instead of random ones.
    correction: with calibration data, True or "fold" lets all units that stay tell those that went; "sum" keeps to
        what was merged, and fits how often each column counts; "refit" solves for the next layers' weights anew.
        False, and without data, takes the coefficients that the weights say.
    round_to: the number of outputs of every layer that is cut becomes a multiple of this: fewer units are merged.
    seed: of the hashes.

    Raises ConfigError.
    """

    amount: float = 0.3
    similarity: float = 0.0
    by: Literal["weights", "activations"] = "weights"
    hash: Literal["simhash", "cross_polytope", "inner_product"] = "simhash"
    bits: int = 6
    tables: int = 16
    learnt: bool = False
    correction: bool | Literal["sum", "fold", "refit"] = True
    round_to: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not share(self.amount) or not 0 <= self.amount < 1:
            raise self.error("amount", "a share from 0 to below 1, such as 0.3")
        if not share(self.similarity) or not -1 <= self.similarity <= 1:
            raise self.error("similarity", "a cosine from -1 to 1, such as 0.8")
        if self.by not in ("weights", "activations"):
            raise self.error("by", '"weights" or "activations"')
        if self.hash not in ("simhash", "cross_polytope", "inner_product"):
            raise self.error("hash", '"simhash", "cross_polytope" or "inner_product"')
        if not whole(self.bits) or not 1 <= self.bits <= MOST_BITS:
            raise self.error("bits", f"a whole number from 1 to {MOST_BITS}")
        if not whole(self.tables) or self.tables < 1:
            raise self.error("tables", "a whole number from 1 on")
        if not isinstance(self.learnt, bool):
            raise self.error("learnt", "True or False")
        if self.correction not in (True, False, "sum", "fold", "refit"):
            raise self.error("correction", 'True, False, "sum", "fold" or "refit"')
        check_multiple(self, self.round_to)
        if not whole(self.seed):
            raise self.error("seed", "a whole number")

    def error(self, name: str, wanted: str) -> ConfigError:
        return ConfigError(f"MergeChannels({name}={getattr(self, name)!r}): {name} must be {wanted}")

    def __str__(self) -> str:
        planes = "learnt " if self.learnt else ""
        rounded = f", widths in multiples of {self.round_to}" if self.round_to > 1 else ""
        return f"merge {self.amount:.0%} by {self.by}, {planes}{self.hash}{rounded}"


def whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def share(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
