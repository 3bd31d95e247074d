"""Choosing indices one input column at a time, so that later columns repair the error of earlier ones.

Error feedback and coordinate descent are the same sweep. With D the decoded rows and M a (K, K) matrix,
visiting the columns from the last to the first,

    target = base[j] + state[j] / M[j, j]      D[j] = nearest level to target
    step   = base[j] - D[j]                    state += step * M[j]

is
- **error feedback** for base = W, state = 0 and M = L with H = L L': the back substitution of Babai's nearest
  plane, which is GPTQ (Frantar et al. 2022, arXiv 2210.17323) without its inverse of H;
- **coordinate descent** for base = D, state = H (W - D) and M = H: each column gets its exact minimum of
  tr((W - D)' H (W - D)) given all others (QuantEase, Behdin et al. 2023, arXiv 2309.01885).

Matrices are held transposed here, `(K, n)`: a column of the weight matrix is then contiguous.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 64  # columns whose steps reach the rest of the state in one product


def midpoints(levels: Tensor) -> Tensor:
    """Where the nearest level changes: (n, L - 1) of sorted `levels: (n, L)`."""
    return (levels[:, 1:] + levels[:, :-1]) / 2


def nearest(levels: Tensor, rows: Tensor) -> Tensor:
    """Index of the nearest of the sorted `levels: (n, L)` for each of `rows: (K, n)`, as (K, n) uint8."""
    return torch.searchsorted(midpoints(levels), rows.T.contiguous()).T.to(torch.uint8)


def sweep(base: Tensor, state: Tensor, matrix: Tensor, levels: Tensor) -> Tensor:
    """New indices (K, n) uint8 after one sweep; `state` is updated in place.

    base, state: (K, n); matrix: (S, K, K), symmetric or lower triangular, one for each of S sets of n/S consecutive
    columns; levels: (n, L), each row sorted.
    """
    columns, n = base.shape
    sets = len(matrix)
    cuts = midpoints(levels)
    inverse = (1 / matrix.diagonal(dim1=1, dim2=2)).T.contiguous()  # (K, S)
    indices = torch.empty(base.shape, dtype=torch.uint8)
    for first in reversed(range(0, columns, BLOCK)):
        block = slice(first, min(first + BLOCK, columns))
        square, local, here = matrix[:, block, block], state[block].clone(), base[block]
        by_set = local.view(len(here), sets, -1)
        steps = torch.empty_like(here)
        for j in reversed(range(here.shape[0])):
            target = (by_set[j] * inverse[first + j, :, None]).view(n).add_(here[j])
            choice = torch.searchsorted(cuts, target[:, None])
            torch.sub(here[j], levels.gather(1, choice)[:, 0], out=steps[j])
            by_set.addcmul_(square[:, j].T[:, :, None], steps[j].view(1, sets, -1))
            indices[first + j] = choice[:, 0]
        state += times(matrix[:, block].mT, steps)
    return indices


def times(form: Tensor, matrix: Tensor) -> Tensor:
    """H @ matrix, (J, n): each of S sets of n/S consecutive columns of `matrix: (K, n)` by its own H.

    form: (S, J, K), or the diagonals of (S, K, K) as (S, K).
    """
    by_set = matrix.reshape(len(matrix), len(form), -1)
    if form.ndim == 2:
        return (form.T[:, :, None] * by_set).reshape(matrix.shape)
    return (form @ by_set.transpose(0, 1)).transpose(0, 1).reshape(-1, matrix.shape[1])
