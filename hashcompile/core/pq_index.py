"""How much of a vector matters: the PQ Index, and what it says of a layer.

    I(w) = 1 - d^(1/q - 1/p) |w|_p / |w|_q,    0 < p < q

is 0 where all d entries are equally large, and near 1 where one holds everything. Of a vector whose small entries are
worth at most a share eta of the others, at least

    r = d (1 + eta)^(-q / (q - p)) (1 - I)^(qp / (q - p))

entries must stay: sparsity-informed adaptive pruning removes the smallest of the rest, round after round, never more
than a share beta of what is left (Diao et al. 2023, "Pruning deep neural networks from a sparsity perspective", arXiv
2302.05601).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor


def pq_index(values: Tensor, p: float = 0.5, q: float = 1.0) -> float:
    """I of `values: (d,)`; 0 of a vector of zeros, whose entries are all alike, and of an empty one."""
    sizes = values.double().abs()
    largest = sizes.max() if len(sizes) else 0.0
    if not largest > 0:
        return 0.0
    sizes = sizes / largest  # powers of tiny entries would be none
    ratio = sizes.pow(p).mean().pow(1 / p) / sizes.pow(q).mean().pow(1 / q)
    return float((1 - ratio).clamp(0, 1))


@dataclass(frozen=True)
class Rule:
    """Sparsity-informed adaptive pruning, its settings named as in the paper."""

    p: float = 0.5
    q: float = 1.0
    eta: float = 0.0  # what the removed entries may be worth, as a share of those that stay, in |.|_p^p
    gamma: float = 1.0  # how much of what the bound allows is taken in one round
    beta: float = 0.9  # never more than this share in one round

    def bound(self, count: float, index: float) -> float:
        """r: how many of `count` entries must stay at the least."""
        p, q = self.p, self.q
        return float(count * (1 + self.eta) ** (-q / (q - p)) * (1 - index) ** (q * p / (q - p)))

    def removable(self, index: float) -> float:
        """The share of the entries of a vector with this index to remove in this round."""
        return max(0.0, min(self.gamma * (1 - self.bound(1, index)), self.beta))


class Phase(StrEnum):
    """What the course of a layer's index over rounds of pruning and training says."""

    COMPRESSIBLE = (
        "compressible"  # falls, or was seen once only: what is left is regularised, and shares the work
    )
    UNDERFITTING = (
        "underfitting"  # rises after that: few entries carry all, the limit of compression is reached
    )
    COLLAPSING = "about to collapse"  # falls again: what is left can no longer tell what matters


def phase(indices: Sequence[float], tolerance: float = 1e-3) -> Phase:
    """The phase at the end of `indices`, one a round; changes below `tolerance` are none."""
    found = Phase.COMPRESSIBLE
    if not indices:
        return found
    turn = indices[0]  # least so far while compressible, greatest so far while underfitting
    for index in indices[1:]:
        if found is Phase.COMPRESSIBLE:
            turn = min(turn, index)
            if index > turn + tolerance:
                found, turn = Phase.UNDERFITTING, index
        elif found is Phase.UNDERFITTING:
            turn = max(turn, index)
            if index < turn - tolerance:
                return Phase.COLLAPSING
    return found
