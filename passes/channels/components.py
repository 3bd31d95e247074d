"""Connected components of labels, by hooking to the smaller root and pointer jumping."""

from __future__ import annotations

import torch
from torch import Tensor


def components(roots: Tensor, edges: Tensor) -> Tensor:
    """The root of every label once `edges` hold too.

    Args:
        roots: (N,) int64, the smallest label that each one is known to be connected to; `arange(N)` to begin with.
        edges: (2, E) int64.

    Returns (N,) int64. Shiloach and Vishkin, "An O(log n) parallel connectivity algorithm", 1982.
    """
    roots = roots.clone()
    while edges.numel():
        low, high = roots[edges].aminmax(dim=0)
        apart = low != high
        edges, low, high = edges[:, apart], low[apart], high[apart]
        roots.scatter_reduce_(0, high, low, "amin")
        while not torch.equal(above := roots[roots], roots):
            roots = above
    return roots
