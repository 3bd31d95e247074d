"""When, where and how much to prune, read off the column norms of a layer alone.

- *how much*: the units whose column norm is more than `spread` standard deviations under the layer's mean column norm.
  The threshold moves with the layer, so nothing is to be set for each.
- *where*: that is nobody where all columns are about equally long; such a layer stays whole.
- *when*: not while the mean column norm still moves by more than `settled` from round to round, for then training is
  still deciding. A layer seen once is taken as trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Rule:
    spread: float = 1.0
    settled: float = 0.05  # as a share of the mean column norm

    def threshold(self, norms: Tensor) -> float:
        """The least column norm that stays, of `norms: (U,)`."""
        norms = norms.double()
        return float(norms.mean() - self.spread * norms.std(correction=0))

    def removable(self, norms: Tensor, means: Sequence[float] = ()) -> int:
        """Units to remove in this round; `means` are the mean column norms of earlier rounds."""
        if not len(norms) or not self.is_settled(float(norms.double().mean()), means):
            return 0
        return int((norms.double() < self.threshold(norms)).sum())

    def is_settled(self, mean: float, means: Sequence[float]) -> bool:
        return not means or abs(mean - means[-1]) <= self.settled * means[-1]
