"""Hyperplanes that are learnt, so that a layer's similar units collide and its different ones do not.

Random hyperplanes cut where there are no units. Those of iterative quantisation (Gong & Lazebnik 2011, "Iterative
quantization: a Procrustean approach to learning binary codes") lie along the principal directions of the units, turned
until the units are as near as they can be to the corners of a cube, which is where the signs put them:

    min over B, R of |B - V R|^2,    B in {-1, 1}^(U, bits),  V = X P (U, bits),  R'R = I

In turns: B = sign(V R), and R = S T' of the singular value decomposition V'B = S D T' (orthogonal Procrustes). Neither
step can make the loss larger.
"""

from __future__ import annotations

import torch
from torch import Tensor


def learnt_planes(units: Tensor, bits: int, tables: int, seed: int, rounds: int = 50) -> Tensor:
    """(L, K, bits) of `units: (U, K)`, each table turned from another random start.

    Directions that the units do not fill are random, as those of plain SimHash.
    """
    draw = torch.Generator().manual_seed(seed)
    lengths = units.double().norm(dim=1, keepdim=True)
    rows = units.double() / torch.where(lengths > 0, lengths, 1.0)
    rank = min(bits, *rows.shape)
    axes = torch.linalg.svd(rows, full_matrices=False).Vh[:rank].T
    planes = []
    for _ in range(tables):
        start = torch.linalg.qr(torch.randn(rank, rank, generator=draw, dtype=torch.float64)).Q
        turned = axes @ rotation(rows @ axes, start, rounds)
        spare = torch.randn(rows.shape[1], bits - rank, generator=draw, dtype=torch.float64)
        planes.append(torch.cat([turned, spare], 1))
    return torch.stack(planes)


def rotation(projected: Tensor, start: Tensor, rounds: int) -> Tensor:
    """R (bits, bits) for V = `projected: (U, bits)`, from the orthogonal `start`."""
    turn = start
    for _ in range(rounds):
        left, _, right = torch.linalg.svd(projected.T @ corners(projected @ turn))
        turn = left @ right
    return turn


def corners(values: Tensor) -> Tensor:
    return torch.where(values >= 0, 1.0, -1.0).to(values.dtype)


def loss(projected: Tensor, turn: Tensor) -> float:
    """|B - V R|^2, what `rotation` makes small."""
    turned = projected @ turn
    return float((corners(turned) - turned).square().sum())
