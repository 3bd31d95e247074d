"""What the user writes: `Wide(recall=0.99)`."""

from __future__ import annotations

from dataclasses import dataclass

from hashcompile.core.checks import is_number, is_seed, is_whole
from hashcompile.core.errors import ConfigError

MOST_BITS = 4096
CODE_BITS = (1, 2, 4, 8)  # that divide a byte


@dataclass(frozen=True)
class Wide:
    """The final layer of very many classes computes few of them: those that a hash of its input finds.

    After SLIDE (Chen et al. 2019, arXiv 1903.03129). All other classes get -infinity, so that argmax, top-k and softmax
    behind the layer see the ones that were computed. Needs calibration data.

    recall: the share of inputs whose best class is to be among those that are computed, above 0 to below 1.
    bits: of a sketch, a multiple of 8; None takes what reads the fewest bytes at that recall.
    code_bits: 1, 2, 4 or 8: rows are codes, decoded one by one as they are computed, from a table for the layer and a
        scale for the row; None leaves them fp32.
    classes: a layer of fewer is left alone.
    seed: of the hyperplanes.

    Raises ConfigError.
    """

    recall: float = 0.99
    bits: int | None = None
    code_bits: int | None = None
    classes: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not is_number(self.recall) or not 0 < self.recall < 1:
            raise self.wrong("recall", "a share above 0 and below 1, such as 0.99")
        if self.bits is not None and not (
            is_whole(self.bits) and 8 <= self.bits <= MOST_BITS and not self.bits % 8
        ):
            raise self.wrong("bits", f"a multiple of 8 up to {MOST_BITS}, or None")
        if self.code_bits is not None and not (is_whole(self.code_bits) and self.code_bits in CODE_BITS):
            raise self.wrong("code_bits", "1, 2, 4 or 8, or None for rows of fp32")
        if not is_whole(self.classes) or self.classes < 2:
            raise self.wrong("classes", "a whole number from 2 on, such as 10000")
        if not is_seed(self.seed):
            raise self.wrong("seed", "a whole number from 0 to below 2**63")

    def wrong(self, name: str, wanted: str) -> ConfigError:
        return ConfigError(f"Wide({name}={getattr(self, name)!r}): {name} must be {wanted}")

    def __str__(self) -> str:
        return f"wide, recall {self.recall:.4g}" + (
            (f", {self.bits} bit" if self.bits else "")
            + (f", rows of {self.code_bits}-bit codes" if self.code_bits else "")
        )
