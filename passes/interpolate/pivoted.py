"""Units that stand for all: pivoted QR of activations, by way of their gram, with an eye on who reads them.

The pivoted QR decomposition Z P = Q R of activations Z (samples, U) takes units one after another, and what is left of
Z outside of the span of those taken has the gram S, the Schur complement of G = Z'Z; samples need not be kept. A layer
with the weights W (N, U) that reads the units is off by |S^(1/2) W'|^2 = tr M S, with M = W'W. The next pivot is the
unit without which most of that would stay,

    argmax over u of  S_u' M S_u / (S_uu + a little),

summed over all layers that read the units, each with a gram and weights of its own, and each relative to its outputs;
with M = I and one layer it is a greedy choice of columns of Z. Interpolative decomposition: Cheng, Gimbutas, Martinsson
& Rokhlin 2005; for networks: Chee, Flynn, Damle & De Sa 2022, "Model Preserving Compression for Neural Networks", arXiv
2108.00065, where the pivot is the unit that is furthest from those taken, whatever becomes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NOISE = 1e-7  # of a gram that was summed in single precision
FIRM = 1e-2  # of the mean square of a unit: pivots with less left of themselves would be read with large coefficients


@dataclass(frozen=True)
class View:
    """The U units of a group as one layer sees them."""

    gram: Tensor  # (U, U) float64, symmetric positive semidefinite, G
    metric: Tensor  # (U, U) float64, likewise, M


@dataclass(frozen=True)
class Pivots:
    order: Tensor  # (U,) int64, what is needed most first
    residual: (
        Tensor  # (U + 1,) float64, falling from 1 to 0: mean over views of tr M S / tr M G, behind k pivots
    )

    def width(self, tolerance: float) -> int:
        """The fewest units from which the outputs of the layers can be told within `tolerance`, relative error."""
        return int((self.residual > tolerance**2).sum())


def pivoted(views: Sequence[View], count: int) -> Pivots:
    """Pivots of `count` units."""
    left = [(view.gram.double().clone(), scaled(view) @ view.gram.double()) for view in views]  # S, M S
    floors = [NOISE * float(gram.diagonal().max()) for gram, _ in left] if count else []
    firms = [FIRM * float(gram.diagonal().mean()) for gram, _ in left]
    open_ = torch.ones(count, dtype=torch.bool)
    order = torch.arange(count)
    residual = torch.zeros(count + 1, dtype=torch.float64)
    total = sum(float(seen.diagonal().sum()) for _, seen in left)
    for step in range(count):
        residual[step] = sum(float(seen.diagonal().sum()) for _, seen in left)
        gains = torch.zeros(count, dtype=torch.float64)
        for (gram, seen), floor, firm in zip(left, floors, firms, strict=True):
            own = gram.diagonal()
            gains += torch.where(own > floor, (gram * seen).sum(0) / (own + firm), 0.0)
        gains[~open_] = -1
        unit = int(gains.argmax())
        if (
            not gains[unit] > 0
        ):  # the rest is spanned to rounding, or nobody cares: it follows in the order it has
            order[step:] = torch.nonzero(open_).flatten()
            residual[step] = 0.0
            break
        order[step], open_[unit] = unit, False
        left = [
            without(gram, seen, unit) if float(gram[unit, unit]) > floor else (gram, seen)
            for (gram, seen), floor in zip(left, floors, strict=True)
        ]
    return Pivots(order, (residual / total).clamp(0, 1) if total > 0 else residual)


def scaled(view: View) -> Tensor:
    whole = (view.metric * view.gram).sum()
    return view.metric.double() / whole if whole > 0 else torch.zeros_like(view.metric, dtype=torch.float64)


def without(gram: Tensor, seen: Tensor, unit: int) -> tuple[Tensor, Tensor]:
    """S and M S of what is outside of the span of one more unit."""
    row = gram[unit] / gram[unit, unit]
    return gram - gram[:, unit, None] * row, seen - seen[:, unit, None] * row
