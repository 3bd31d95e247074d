"""What the user writes: `Hashed(ratio=1/8)`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hashcompile.core.checks import is_number, is_whole
from hashcompile.core.errors import ConfigError
from hashcompile.passes.hashed.weight import TILE_VALUES, WEIGHTS_PER_VALUE


@dataclass(frozen=True)
class Hashed:
    """Each weight is one of `ratio` times as many values, or its negative: which one is a hash of its place.

    HashedNets: Chen et al. 2015, arXiv 1504.04788.

    ratio: values stored for each weight, from 1/4096 to less than 1; rounded up for each layer.
    tile: one hash for 16 x 16 neighbouring weights, which lie together in memory (ROAST: Desai et al. 2022,
        arXiv 2207.10702), rather than for each weight.
    start: "fit" finds the values that come closest to a trained layer; "sample" takes one of the weights of each
        bucket, which leaves an untrained model the scale of its initialisation.
    seed: of the hash; each layer mixes its own name into it.
    pool: a name; all layers that this very config is given to share one array of values, `ratio` times as many as they
        have weights together. Each has its own hash, and one scale (ROAST's global sharing).

    Raises ConfigError.
    """

    ratio: float = 1 / 8
    tile: bool = False
    start: Literal["fit", "sample"] = "fit"
    seed: int = 0
    pool: str | None = None

    def __post_init__(self) -> None:
        if not is_number(self.ratio) or not 1 / WEIGHTS_PER_VALUE <= self.ratio < 1:
            raise ConfigError(
                f"Hashed(ratio={self.ratio!r}): ratio is how many values are stored for each weight, from "
                f"1/{WEIGHTS_PER_VALUE} to less than 1, such as 1/8"
            )
        if not isinstance(self.tile, bool):
            raise ConfigError(
                f"Hashed(tile={self.tile!r}): tile is True (16 x 16 weights, a fixed size) or False"
            )
        if self.start not in ("fit", "sample"):
            raise ConfigError(f'Hashed(start={self.start!r}): start must be "fit" or "sample"')
        if not is_whole(self.seed):
            raise ConfigError(f"Hashed(seed={self.seed!r}): seed must be a whole number")
        if self.pool is not None and not (isinstance(self.pool, str) and self.pool):
            raise ConfigError(f'Hashed(pool={self.pool!r}): pool is a name, such as "all", or None')

    def __str__(self) -> str:
        pool = f", pool {self.pool}" if self.pool else ""
        return f"hashed, ratio {self.ratio:.4g}" + (", tiles" if self.tile else "") + pool

    def count(self, weights: int) -> int:
        """Values stored for so many weights."""
        unit = TILE_VALUES if self.tile else 1
        return unit * math.ceil(self.ratio * weights / unit)
