"""Units that stand for all: pivoted QR of activations, by way of their gram.

The pivoted QR decomposition Z P = Q R of activations Z (samples, U) takes, one after another, the unit that is furthest
from the span of those already taken. R'R = P'Z'Z P, so R is the pivoted Cholesky factor of the gram Z'Z, and samples
need not be kept. What is left of Z outside of the span of the first k units has the squared size

    |Z|^2 - sum of squares of the first k rows of R = trace of what remains of the gram,

so the fewest units that hold all others to within a relative error are known. Interpolative decomposition: Cheng,
Gimbutas, Martinsson & Rokhlin 2005; for networks: Chee, Flynn, Damle & De Sa 2022, "Model Preserving Compression for
Neural Networks", arXiv 2108.00065.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pivots:
    order: Tensor  # (U,) int64, the unit furthest from all before it first
    residual: Tensor  # (U + 1,) float64, falling from 1 to 0: |Z - its projection on the first k|^2 / |Z|^2

    def width(self, tolerance: float) -> int:
        """The fewest units whose span holds all units within `tolerance`, the relative error |Z - Z'| / |Z|."""
        return int((self.residual > tolerance**2).sum())


def pivoted(gram: Tensor) -> Pivots:
    """Pivots of `gram: (U, U)`, symmetric positive semidefinite, float64."""
    count = len(gram)
    left = gram.double().diagonal().clone()
    total = left.sum()
    factor = torch.zeros(count, count, dtype=torch.float64)  # rows of R, columns in the units' own order
    order = torch.arange(count)
    residual = torch.zeros(count + 1, dtype=torch.float64)
    noise = count * torch.finfo(torch.float64).eps * float(left.max()) if count else 0.0
    for step in range(count):
        residual[step] = left[order[step:]].clamp_min(0).sum()
        best = step + int(left[order[step:]].argmax())
        order[[step, best]] = order[[best, step]]
        unit = order[step]
        if left[unit] <= noise:  # the rest is spanned to rounding: it follows in the order it has
            break
        row = gram[unit].double() - factor[:step, unit] @ factor[:step]
        factor[step] = row / left[unit].sqrt()
        left = left - factor[step].square()
    return Pivots(order, residual / total if total > 0 else residual)
