"""A few hundred rows of a weight matrix, and the exact steps that lower their output error.

W and D are the weights and decoded weights of n rows, held transposed: (K, n). Their output error is

    E = sum_n importance[n] (W - D)[:, n]' H (W - D)[:, n]

A chunk keeps R = H (W - D) up to date, so each step reads its optimum off R. H is (S, K, K), one matrix for each of S
equal sets of consecutive rows (the groups of a convolution read other inputs), or their diagonals, (S, K).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .feedback import nearest, sweep, times


class Chunk:
    """Rows that are worked on together, with their own scales and indices."""

    def __init__(
        self,
        rows: Tensor,
        importance: Tensor,
        group: Tensor,
        entries: int,
        whole: Tensor,
        factor: Tensor | None,
    ) -> None:
        self.rows = rows  # W: (K, n)
        self.importance = importance  # (n,)
        self.group = group  # (n,) int64: the table of each row
        self.scale = torch.zeros_like(importance)  # (n,)
        self.indices = torch.zeros(rows.shape, dtype=torch.uint8)  # (K, n)
        self.entries = entries  # L
        self.whole = whole  # all of H: (S, K, K); (S, K) where there is no more than a diagonal
        self.factor = factor  # (S, K, K), L of H = L L'

    def levels(self, tables: Tensor) -> Tensor:
        """What each row can decode to: (n, L)."""
        return tables[self.group] * self.scale[:, None]

    def decoded(self, levels: Tensor) -> Tensor:
        """D: (K, n) for `levels: (n, L)`."""
        return levels.T.gather(0, self.indices.long())

    def measure(self, diagonal: bool, tables: Tensor) -> None:
        """Take H as the judge from here on, or its diagonal alone."""
        self.form = self.whole.diagonal(dim1=1, dim2=2) if diagonal and self.whole.ndim == 3 else self.whole
        self.target = times(self.form, self.rows)  # H W
        self.residual = self.target - times(self.form, self.decoded(self.levels(tables)))  # R

    def error(self, tables: Tensor) -> Tensor:
        """E: ()."""
        difference = self.rows - self.decoded(self.levels(tables))
        return ((difference * self.residual).sum(0) * self.importance).sum()

    def feed_back(self, tables: Tensor) -> None:
        """Indices by error feedback, for H = L L'."""
        assert self.factor is not None
        self.indices = sweep(self.rows, torch.zeros_like(self.rows), self.factor, self.levels(tables))

    def choose(self, tables: Tensor) -> None:
        """Indices that do not raise E: a sweep of coordinate descent; for a diagonal H, the nearest."""
        levels = self.levels(tables)
        if self.form.ndim == 2:
            self.indices = nearest(levels, self.rows)
            self.residual = times(self.form, self.rows - self.decoded(levels))
        else:
            self.indices = sweep(self.decoded(levels), self.residual, self.form, levels)

    def rescale(self, tables: Tensor) -> None:
        """Scales that minimise E: times (D' H W) / (D' H D), row by row, where that is positive."""
        decoded, image = self.decoded(self.levels(tables)), self.target - self.residual  # D, H D
        ratio = (decoded * self.target).sum(0) / (decoded * image).sum(0)
        ratio = torch.where(torch.isfinite(ratio) & (ratio > 0), ratio, 1.0)
        self.scale = self.scale * ratio
        self.residual = self.target - image * ratio

    def slope(self, groups: int) -> Tensor:
        """-1/2 dE / dtable: (G, L)."""
        return self._collect(self.residual, self.importance * self.scale, groups)

    def steepness(self, groups: int) -> Tensor:
        """The part of 1/2 d2E / dtable2 that the diagonal of H explains: (G, L)."""
        diagonal = self.form if self.form.ndim == 2 else self.form.diagonal(dim1=1, dim2=2)
        spread = diagonal.T.repeat_interleave(self.rows.shape[1] // len(diagonal), 1)
        return self._collect(spread, self.importance * self.scale.square(), groups)

    def bend(self, direction: Tensor) -> Tensor:
        """1/2 d2E / dtable2 times `direction: (G, L)`; H times the change of D is kept for `move`."""
        self.change = times(self.form, self.decoded(self.levels(direction)))
        return self._collect(self.change, self.importance * self.scale, direction.shape[0])

    def move(self, length: Tensor) -> None:
        """The tables went `length: (G,)` along the direction last given to `bend`."""
        self.residual -= self.change * length[self.group]

    def relabel(self, rank: Tensor) -> None:
        """Entry i of table g is now called rank[g, i]."""
        self.indices = rank[self.group].T.gather(0, self.indices.long()).to(torch.uint8)

    def _collect(self, values: Tensor, factor: Tensor, groups: int) -> Tensor:
        """Sums of values[k, n] * factor[n] over each entry of each table: (G, L)."""
        per_row = torch.zeros(self.entries, values.shape[1], dtype=values.dtype)
        per_row.scatter_add_(0, self.indices.long(), values)
        sums = torch.zeros(groups, self.entries, dtype=values.dtype)
        return sums.index_add_(0, self.group, (per_row * factor).T)
