"""A weight seen as rows: one row for each output channel, whatever the operator's own layout.

| operator            | weight                  | rows (N, K)                    |
|---------------------|-------------------------|--------------------------------|
| linear              | (N, K)                  | (N, K)                         |
| conv1d/2d/3d        | (N, C/groups, *kernel)  | (N, C/groups * prod(kernel))   |
| conv_transpose      | (C, N/groups, *kernel)  | (N, C/groups * prod(kernel))   |
| embedding           | (vocabulary, dim)       | (vocabulary, dim)              |
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class RowView:
    """The shape of a weight, and how its rows lie in it."""

    shape: tuple[int, ...]
    transposed_groups: int = 0  # groups of a transposed convolution; 0 for every other operator

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def size(self) -> tuple[int, int]:
        """(N, K)."""
        n = self.shape[1] * self.transposed_groups if self.transposed_groups else self.shape[0]
        return n, self.numel // n if n else 0

    def rows(self, weight: Tensor) -> Tensor:
        """`weight` of this shape -> (N, K)."""
        if groups := self.transposed_groups:
            channels, out, *kernel = self.shape
            weight = weight.reshape(groups, channels // groups, out, *kernel).transpose(1, 2)
        return weight.reshape(self.size)

    @property
    def order(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(shape, permutation) of rows that bring their elements into the order of the weight's."""
        if groups := self.transposed_groups:  # rows (g, out, in, *k) lie as (g, in, out, *k) in the weight
            channels, out, *kernel = self.shape
            return (groups, out, channels // groups, *kernel), (0, 2, 1, *range(3, 3 + len(kernel)))
        return self.size, (0, 1)

    def weight(self, rows: Tensor) -> Tensor:
        """Inverse of `rows`."""
        shape, permutation = self.order
        return rows.reshape(shape).permute(permutation).reshape(self.shape)
