"""A linear map seen through fewer inputs: which few, and what they can tell.

A layer computes Y = W X for inputs X of m channels with T taps each; T = 1 but for convolutions. With D: (r, m) its
channels are reduced to r, and of all maps of these the one that loses least is

    U = W H D' (D H D')^-1,    H = X X',

so that |W X - U D X|^2 = tr(W H W') - tr(U D H W'). Everything here is in float64, and knows X by its gram alone;
without one H = I. D has orthonormal rows, the most telling first: the first r of them serve for every r, and one
Cholesky factorisation gives the losses of all r at once.

- truncated SVD (Eckart & Young 1936): D are right singular vectors of W.
- whitened: left singular vectors u_i of W H^(1/2) give D = u_i' W, and W X loses exactly the singular values that are
  left out, the least that any r can lose. The u_i are the principal components of Y: low-rank responses (Zhang, Zou, He
  & Sun 2015, arXiv 1505.06798), and activation-aware SVD (Wang et al. 2024, SVD-LLM, arXiv 2403.07378).
- pca: the principal components of X, whatever W (Levin, Leen & Moody 1993, "Fast pruning using principal components").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hashcompile.compensate import compensate
from hashcompile.passes.lowrank.config import By

RIDGE = (
    1e-6  # as a share of the mean energy: where inputs are nothing but rounding, rows are read as they lie
)
LEAST = 1e-12  # the same, for losses, of which only sums count


@dataclass(frozen=True)
class Product:
    rows: Tensor  # (N, m, T) float64
    gram: Tensor | None = None  # (m * T, m * T) float64, of which an input's channel is the slower part
    often: Tensor | None = None  # (N,), how much the error of a row counts

    @classmethod
    def of(cls, rows: Tensor, channels: int, gram: Tensor | None, often: Tensor | None = None) -> Product:
        """Of `rows: (N, K)` with `channels` of equal numbers of taps. A gram of nothing says nothing."""
        seen = gram is not None and bool(gram.diagonal().sum() > 0)
        shaped = rows.double().reshape(len(rows), channels, -1)
        return cls(shaped, gram.double() if gram is not None and seen else None, often)

    @property
    def taps(self) -> int:
        return self.rows.shape[2]

    @property
    def channel_gram(self) -> Tensor:
        """(m, m): that of the channels, summed over taps."""
        channels = self.rows.shape[1]
        if self.gram is None:
            return torch.eye(channels, dtype=torch.float64)
        by_tap = self.gram.reshape(channels, self.taps, channels, self.taps)
        return by_tap.diagonal(dim1=1, dim2=3).sum(-1)

    def basis(self, by: By) -> Tensor:
        """D (R, m), R = m or the most that W can fill. Its first r rows are the choice for rank r."""
        if by == "pca":
            return torch.linalg.eigh(self.channel_gram)[1].flip(1).T.contiguous()
        counted = self.rows if self.often is None else self.rows * self.often.double().sqrt()[:, None, None]
        rows = counted.movedim(1, 2).reshape(-1, self.rows.shape[1])
        if self.gram is None:
            return torch.linalg.svd(rows, full_matrices=False)[2]
        left = torch.linalg.svd(rows @ root(self.channel_gram), full_matrices=False)[0]
        return torch.linalg.qr((left.T @ rows).T)[0].T.contiguous()

    def reduced_gram(self, basis: Tensor) -> Tensor | None:
        """D H D' (r * T, r * T)."""
        if self.gram is None:
            return None
        channels, taps = self.rows.shape[1:]
        half = torch.tensordot(basis, self.gram.reshape(channels, taps, channels, taps), 1)  # (r, T, m, T)
        whole = torch.tensordot(half, basis, ([2], [1]))  # (r, T, T, r)
        return whole.permute(0, 1, 3, 2).reshape(len(basis) * taps, len(basis) * taps)

    def cross(self, basis: Tensor) -> Tensor:
        """W H D' (N, r * T)."""
        count, channels, taps = self.rows.shape
        seen = self.rows.reshape(count, -1)
        if self.gram is not None:
            seen = seen @ self.gram
        return torch.einsum("nmt,rm->nrt", seen.reshape(count, channels, taps), basis).flatten(1)

    def told(self, basis: Tensor) -> Tensor:
        """U (N, r, T)."""
        plain = torch.einsum("nmt,rm->nrt", self.rows, basis)
        if self.gram is None:
            return plain
        channels, taps = self.rows.shape[1:]
        gram, shape = self.reduced_gram(basis), (channels, taps, channels, taps)
        assert gram is not None
        cross = torch.einsum("mtks,rk->mtrs", self.gram.reshape(shape), basis).reshape(channels * taps, -1)
        rows = self.rows.flatten(1)
        return compensate(rows, gram, cross, RIDGE, plain.flatten(1)).reshape(plain.shape)

    def energy(self, rows: Tensor) -> float:
        """|rows X|^2 of `rows: (N, m, T)`."""
        flat = rows.flatten(1)
        squares = (flat * (flat if self.gram is None else flat @ self.gram)).sum(1)
        return float((squares if self.often is None else squares * self.often.double()).sum())

    def explained(self, basis: Tensor) -> Tensor:
        """(N, R, T): outputs of least squares in coordinates of energy one; what rank r tells is in the first r."""
        cross, gram = self.cross(basis), self.reduced_gram(basis)
        if gram is not None:
            factor = cholesky(gram)
            cross = torch.linalg.solve_triangular(factor, cross.T, upper=False).T
        return cross.reshape(len(cross), len(basis), self.taps)

    def losses(self, basis: Tensor) -> Tensor:
        """(R + 1,): the share of the outputs' energy that is lost with the first r rows of `basis`, r = 0 ... R."""
        squares = self.explained(basis).square().sum(2)
        if self.often is not None:
            squares = squares * self.often.double()[:, None]
        return falling(squares.sum(0), self.energy(self.rows))


def falling(parts: Tensor, whole: float) -> Tensor:
    """(R + 1,): the share of `whole` that is left when `parts: (R,)` go one after another. Of nothing, nothing."""
    if not whole > 0:
        return torch.zeros(len(parts) + 1, dtype=torch.float64)
    told = torch.cat([torch.zeros(1, dtype=torch.float64), parts.cumsum(0)])
    return (1 - told / whole).clamp(0, 1)


def least_rank(losses: Tensor, tolerance: float) -> int:
    """The least rank from 1 on that loses no more than `tolerance` of the energy; all, where none does. Rounding counts
    for nothing."""
    allowed = tolerance + len(losses) * torch.finfo(torch.float32).eps ** 2
    within = torch.nonzero(losses <= allowed).flatten()
    return max(1, int(within[0])) if len(within) else len(losses) - 1


def principal(up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """The same product with orthonormal columns in `up: (n, r)`, and rows of `down: (r, m)` that fall in size.

    So the rows of each factor are alike in size along their length, which is what one table and one scale a row encode
    best. The rank falls to n where there are fewer outputs.
    """
    frame, rest = torch.linalg.qr(up)
    left, sizes, right = torch.linalg.svd(rest @ down, full_matrices=False)
    return frame @ left, sizes[:, None] * right


def root(gram: Tensor) -> Tensor:
    """S (m, m) with S S' = `gram`, which rounding may have left indefinite."""
    values, vectors = torch.linalg.eigh(gram)
    return vectors * values.clamp_min(0).sqrt()


def cholesky(gram: Tensor) -> Tensor:
    """L with L L' = `gram` and as little of a ridge as it needs."""
    eye, mean = torch.eye(len(gram), dtype=gram.dtype), float(gram.diagonal().mean()) or 1.0
    ridge = LEAST
    while True:
        factor, info = torch.linalg.cholesky_ex(gram + ridge * mean * eye)
        if int(info) == 0:
            return factor
        ridge *= 10
