"""Buckets of similar units, each to become one.

A hash proposes, the similarity decides: only units that met in some table may share a bucket, and those most alike are
joined first (agglomerative, complete linkage: a bucket is as good as its two most different members, so that no chain
of small differences joins units that have nothing in common).
"""

from __future__ import annotations

import torch
from torch import Tensor


def buckets(similarity: Tensor, met: Tensor, target: int, least: float) -> list[list[int]]:
    """Every unit in one bucket, buckets and members in rising order.

    Args:
        similarity: (U, U), symmetric, -1 to 1.
        met: (U, U) bool, which pairs a hash proposed.
        target: stop when so few buckets are left.
        least: members of a bucket are at least this similar.
    """
    count = len(similarity)
    allowed = (met | met.T) & (similarity >= least)
    linkage = torch.where(allowed, similarity.double(), -torch.inf).fill_diagonal_(-torch.inf)
    members = [[unit] for unit in range(count)]
    for _ in range(count - max(1, target)):
        best = int(linkage.argmax())
        if linkage.flatten()[best] == -torch.inf:
            break
        into, other = sorted(divmod(best, count))
        members[into] += members[other]
        members[other] = []
        joined = torch.minimum(linkage[into], linkage[other])
        linkage[into, :], linkage[:, into] = joined, joined
        linkage[other, :], linkage[:, other] = -torch.inf, -torch.inf
        linkage[into, into] = -torch.inf
    return [sorted(bucket) for bucket in members if bucket]


def cosines(units: Tensor) -> Tensor:
    """(U, U) of `units: (U, K)`; a unit of zeros is like no other."""
    rows = units.double()
    lengths = rows.norm(dim=1, keepdim=True)
    rows = rows / torch.where(lengths > 0, lengths, 1.0)
    return (rows @ rows.T).clamp(-1, 1)
