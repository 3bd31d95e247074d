"""What the user writes: `LowRank(energy=0.95)`, `Sampled(share=0.5)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hashcompile.core.checks import is_number, is_seed, is_whole
from hashcompile.core.errors import ConfigError

By = Literal["auto", "svd", "whitened", "pca"]
Conv = Literal["tucker", "spatial", "channel", "auto"]


@dataclass(frozen=True)
class LowRank:
    """One product becomes two or three thin ones, wherever that takes fewer parameters and fewer multiplications.

    rank | energy | error: exactly one of them. The size between the factors, a whole number from 1 on; or the share of
        the outputs' energy that is kept, above 0 and at most 1; or what may be lost of them, |Y - Y'| / |Y|, from 0 to
        below 1. The last two give every layer the rank that it needs; error = e means energy = 1 - e^2. Outputs are
        those on calibration data, less their means where a bias can take these; without data they are the weights.
    by: where the space between the factors comes from. "svd": truncated SVD of the weights, without data. "whitened":
        of the weights times the square root of the inputs' gram, which loses least of the outputs, and is the PCA of
        these. "pca": the principal components of the inputs, whatever the weights. "auto": "whitened" with calibration
        data, "svd" without.
    conv: "tucker": 1x1, the kernel on fewer channels, 1x1. "spatial": a column of taps, then a row. "channel": the
        kernel with fewer outputs, then 1x1. "auto": whichever takes fewest multiplications within the tolerance.
    round_to: ranks become a multiple of this.

    Raises ConfigError.
    """

    rank: int | None = None
    energy: float | None = None
    error: float | None = None
    by: By = "auto"
    conv: Conv = "tucker"
    round_to: int = 1

    def __post_init__(self) -> None:
        given = [name for name in ("rank", "energy", "error") if getattr(self, name) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            raise ConfigError(
                f"LowRank takes exactly one of rank, energy and error, got {got}: LowRank(energy=0.95)"
            )
        if self.rank is not None and not (is_whole(self.rank) and self.rank >= 1):
            raise self.wrong("rank", "a whole number from 1 on, such as 32")
        if self.energy is not None and not (is_number(self.energy) and 0 < self.energy <= 1):
            raise self.wrong("energy", "a share above 0 and at most 1, such as 0.95")
        if self.error is not None and not (is_number(self.error) and 0 <= self.error < 1):
            raise self.wrong("error", "a relative error from 0 to below 1, such as 0.1")
        if self.by not in ("auto", "svd", "whitened", "pca"):
            raise self.wrong("by", '"auto", "svd", "whitened" or "pca"')
        if self.conv not in ("tucker", "spatial", "channel", "auto"):
            raise self.wrong("conv", '"tucker", "spatial", "channel" or "auto"')
        if self.conv == "auto" and self.rank is not None:
            raise self.wrong(
                "conv", "named where a rank is: at equal rank the forms differ in cost; or give energy="
            )
        if not (is_whole(self.round_to) and self.round_to >= 1):
            raise self.wrong("round_to", "a whole number from 1 on, such as 16")

    def wrong(self, name: str, wanted: str) -> ConfigError:
        return ConfigError(f"LowRank({name}={getattr(self, name)!r}): {name} must be {wanted}")

    @property
    def tolerance(self) -> float:
        """The share of the energy that may be lost; 0 where a rank is given."""
        if self.energy is not None:
            return 1 - self.energy
        return self.error**2 if self.error is not None else 0.0

    def __str__(self) -> str:
        if self.rank is not None:
            size = f"rank {self.rank}"
        else:
            size = f"energy {self.energy:.1%}" if self.energy is not None else f"error {self.error:.1%}"
        return f"low rank, {size}" + (f", by {self.by}" if self.by != "auto" else "")


@dataclass(frozen=True)
class Sampled:
    """Randomised multiplication: a product is computed from some of its columns and the same inputs, rescaled.

    Columns are drawn once, when compiling, with probabilities in proportion to the norm of the column times that of its
    input: of all independent draws these lose least (Drineas, Kannan & Mahoney 2006, doi 10.1137/S0097539704442684).
    A convolution loses input channels. The report puts the error beside that of a truncated SVD of equal cost.

    columns | share: exactly one of them. How many draws, a whole number from 1 on; or as a share of a layer's inputs,
        above 0 and below 1. A column drawn twice is stored once.
    seed: of the draws.

    Raises ConfigError.
    """

    columns: int | None = None
    share: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.columns is None) == (self.share is None):
            raise ConfigError("Sampled takes exactly one of columns and share: Sampled(share=0.5)")
        if self.columns is not None and not (is_whole(self.columns) and self.columns >= 1):
            raise self.wrong("columns", "a whole number from 1 on, such as 64")
        if self.share is not None and not (is_number(self.share) and 0 < self.share < 1):
            raise self.wrong("share", "above 0 and below 1, such as 0.5")
        if not is_seed(self.seed):
            raise self.wrong("seed", "a whole number from 0 to below 2**63")

    def wrong(self, name: str, wanted: str) -> ConfigError:
        return ConfigError(f"Sampled({name}={getattr(self, name)!r}): {name} must be {wanted}")

    def draws(self, inputs: int) -> int:
        """Of a layer with so many inputs."""
        return self.columns if self.columns is not None else max(1, round((self.share or 0) * inputs))

    def __str__(self) -> str:
        amount = f"{self.columns} columns" if self.columns is not None else f"{self.share:.0%} of the columns"
        return f"sampled, {amount}"
