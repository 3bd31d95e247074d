"""Optimal brain surgery, column by column: what goes is made up for by the columns that come after it.

With H = X X' of the layer's inputs and C the upper Cholesky factor of H^-1 = C' C, setting w_j to q loses the outputs
(w_j - q)^2 / C_jj^2, if all later weights then move by

    w_l -= (w_j - q) C_jl / C_jj,    l > j

(SparseGPT: Frantar & Alistarh 2023, arXiv 2301.00774; after Hassibi & Stork 1993). q = 0 prunes, q the nearest value of
a codebook quantises, in the same sweep. Weights that went are zero, and stay so: their target is 0 whatever earlier
columns move them by, so the error is fed to kept weights only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hashcompile.passes.sparse.masks import of_pattern, of_share

BLOCK = 128  # columns among which a share is taken, and whose steps reach the rest in one product
DAMPING = 0.01  # ridge on the gram, as a share of its mean diagonal
Choose = Callable[[Tensor], Tensor]  # scores (N, columns) -> mask
Round = Callable[[Tensor, int], Tensor]  # (values (N,), column) -> the nearest that can be stored


@dataclass(frozen=True)
class Operated:
    rows: Tensor  # (N, K) float64
    mask: Tensor  # (N, K) bool


def operate(
    rows: Tensor, gram: Tensor, mask: Tensor | None, choose: Choose, every: int, nearest: Round | None = None
) -> Operated:
    """Prune `rows: (N, K)` under `gram: (K, K)`, float64.

    mask: what stays; None to choose it as the sweep goes, `every` so many columns, by what the outputs would lose.
    nearest: of kept weights; None leaves them as they are moved.
    """
    columns = rows.shape[1]
    factor = inverse_factor(gram)
    left, kept = rows.clone(), torch.ones(rows.shape, dtype=torch.bool) if mask is None else mask.clone()
    for first in range(0, columns, BLOCK):
        last = min(first + BLOCK, columns)
        block, local = left[:, first:last].clone(), factor[first:last, first:last]
        steps = torch.zeros_like(block)
        for j in range(last - first):
            if mask is None and j % every == 0:
                ahead = slice(j, min(j + every, last - first))
                scores = (block[:, ahead] / local.diagonal()[ahead]).square()
                kept[:, first:last][:, ahead] = choose(scores)
            stays = kept[:, first + j]
            value = block[:, j] if nearest is None else nearest(block[:, j], first + j)
            value = torch.where(stays, value, 0.0)
            steps[:, j] = (block[:, j] - value) / local[j, j]
            block[:, j:] -= steps[:, j, None] * local[j, j:]
            left[:, first + j] = value
        left[:, last:] -= steps @ factor[first:last, last:]
    return Operated(left, kept)


def share(amount: float) -> tuple[Choose, int]:
    """A share of the weights of each block, all rows together."""
    return lambda scores: of_share(scores, amount), BLOCK


def pattern(kept: int, of: int) -> tuple[Choose, int]:
    """Of every `of` columns; blocks hold whole runs where `of` divides them, and it is cut at their ends else."""
    return lambda scores: of_pattern(scores, kept, of), of


def inverse_factor(gram: Tensor) -> Tensor:
    """C (K, K), upper, with C' C the inverse of the damped gram; the identity for inputs of nothing."""
    mean = float(gram.diagonal().mean())
    eye = torch.eye(len(gram), dtype=torch.float64)
    if not mean > 0:
        return eye
    form, damping = gram.double() / mean, DAMPING
    while True:
        lower, info = torch.linalg.cholesky_ex(form + damping * eye)
        if int(info) == 0:
            return torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
        damping *= 10
