"""Buckets of similar units, each to become one.

A hash proposes, what would be lost decides: only units that met in some table may share a bucket, and those are joined
first which the layers that read them miss least (agglomerative, complete linkage: a bucket is as good as its two worst
members, so that no chain of small differences joins units that have nothing in common).
"""

from __future__ import annotations

import torch
from torch import Tensor


def buckets(loss: Tensor, allowed: Tensor, target: int) -> list[list[int]]:
    """Every unit in one bucket, buckets and members in rising order.

    Args:
        loss: (U, U), symmetric, of joining two units.
        allowed: (U, U) bool, which pairs may share a bucket; true either way is enough.
        target: stop when so few buckets are left.
    """
    count = len(loss)
    linkage = torch.where(allowed | allowed.T, loss.double(), torch.inf).fill_diagonal_(torch.inf)
    members = [[unit] for unit in range(count)]
    for _ in range(count - max(1, target)):
        best = int(linkage.argmin())
        if linkage.flatten()[best] == torch.inf:
            break
        into, other = sorted(divmod(best, count))
        members[into] += members[other]
        members[other] = []
        joined = torch.maximum(linkage[into], linkage[other])
        linkage[into, :], linkage[:, into] = joined, joined
        linkage[other, :], linkage[:, other] = torch.inf, torch.inf
        linkage[into, into] = torch.inf
    return [sorted(bucket) for bucket in members if bucket]


def losses(similarity: Tensor, worth: Tensor) -> Tensor:
    """(U, U): what is lost of the lesser of two units if it is told from the other, worth * (1 - cosine^2).

    Opposites tell nothing of each other: behind an activation they are two different things.

    similarity: (U, U) cosines; worth: (U,), squared, of what the layers that read the units make of each.
    """
    return (1 - similarity.clamp_min(0).square()) * torch.minimum(worth[:, None], worth)


def cosines(units: Tensor) -> Tensor:
    """(U, U) of `units: (U, K)`; a unit of zeros is like no other."""
    rows = units.double()
    lengths = rows.norm(dim=1, keepdim=True)
    rows = rows / torch.where(lengths > 0, lengths, 1.0)
    return (rows @ rows.T).clamp(-1, 1)
