"""What all codes have in common whose assignments train: who sets them, and what they are for everybody else."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hashcompile.core.encoded import EncodedWeight
from hashcompile.core.entropy import Symbols
from hashcompile.core.errors import WeightError
from hashcompile.core.rows import RowView


class LearningCode(EncodedWeight):
    """Behind every index stands a latent weight, which looks for its entry of a table. How is set from outside, by
    whoever knows how far training is:

    - temperature > 0, and the module trains: softly, at so many times the spread of the table.
    - temperature = 0, or the module is evaluated: the nearest entry, with gradients straight through.
    - held: the entry at `indices`, whatever becomes of the latent weights; tables and scales train on.

    To all that evaluates, lowers or stores it, it is the code that it would become.
    """

    latent: nn.Parameter
    codebook: nn.Parameter
    scale: nn.Parameter  # (N,)
    indices: Tensor  # uint8, one a latent weight

    def __init__(self, view: RowView) -> None:
        super().__init__(view)
        self.temperature, self.held = 0.0, False

    @property
    def softly(self) -> bool:
        return self.temperature > 0 and self.training and not self.held

    @abstractmethod
    def taken(self) -> Tensor:
        """Of the shape of `indices`: the entry of every weight."""

    @abstractmethod
    def stored(self) -> EncodedWeight:
        """What becomes of it: an index for every weight."""

    def check(self) -> None:
        """Raises WeightError where something is not finite: NaN has no nearest entry."""
        for name in ("codebook", "scale") if self.held else ("codebook", "scale", "latent"):
            value = getattr(self, name).detach()
            if wrong := int((~torch.isfinite(value)).sum()):
                raise WeightError(f"its {name} holds {wrong} NaN or infinite values of {value.numel()}")

    def hold(self) -> None:
        """Let every weight keep the entry that it has now."""
        self.indices.copy_(self.taken())
        self.held = True

    def scaled(self, factor: Tensor) -> EncodedWeight:
        return self.stored().scaled(factor)

    def joined(self, others: Sequence[EncodedWeight]) -> EncodedWeight | None:
        return self.stored().joined(others)

    def in_int8(self) -> EncodedWeight:
        return self.stored().in_int8()

    def in_bf16(self) -> EncodedWeight:
        return self.stored().in_bf16()

    def storage(self) -> dict[str, Tensor]:
        return self.stored().storage()

    def symbols(self) -> dict[str, Symbols]:
        return self.stored().symbols()

    def describe(self) -> dict[str, Any]:
        return self.stored().describe()

    def remark(self) -> str | None:
        return self.stored().remark()
