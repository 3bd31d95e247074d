"""Locality-sensitive hashes: the more alike two units are, the more tables they share a bucket in.

A fingerprint is a bucket number a unit in each of L tables. Units are rows x of (U, K); all hashes here see directions
only, so that units which differ by a positive factor always meet, and lengths count through `asymmetric` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

Hash = Callable[[Tensor], Tensor]  # (U, K) -> (L, U) int64, the bucket of each unit in each table


def random_planes(width: int, bits: int, tables: int, seed: int) -> Tensor:
    """(L, K, bits) standard normal: what SimHash and the cross-polytope hash are drawn from."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(tables, width, bits, generator=draw, dtype=torch.float64)


def simhash(units: Tensor, planes: Tensor) -> Tensor:
    """On which side of each hyperplane a unit lies (Charikar 2002): two units at an angle t agree in a bit with
    probability 1 - t / pi.

    units: (U, K); planes: (L, K, bits), at most 62 bits.
    """
    sides = units.double() @ planes >= 0
    return (sides.long() << torch.arange(planes.shape[-1])).sum(-1)


def cross_polytope(units: Tensor, planes: Tensor) -> Tensor:
    """The nearest vertex of a cross-polytope turned at random (Andoni et al. 2015, arXiv 1509.02897): the coordinate
    that is largest in magnitude, and its sign. Asymptotically the best there is for angles.

    units: (U, K); planes: (L, K, m), a random map to m coordinates. Buckets are 0 .. 2m - 1.
    """
    turned = units.double() @ planes
    largest = turned.abs().argmax(-1, keepdim=True)
    return (2 * largest + (turned.gather(-1, largest) < 0)).squeeze(-1)


HASHES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {"simhash": simhash, "cross_polytope": cross_polytope}
)


def as_items(units: Tensor) -> Tensor:
    """(U, K) -> (U, K + 1): rows shrunk into the unit ball and lifted onto the sphere above it, [x, sqrt(1 - |x|^2)].

    With `as_queries` this makes an inner product an angle: q . x / max|x| for |q| = 1, so that a hash for angles finds
    the unit of the greatest inner product, however long the units are (Neyshabur & Srebro 2015, arXiv 1410.5518, after
    the asymmetric transform of Shrivastava & Li 2014, arXiv 1405.5869).
    """
    rows = units.double()
    lengths = rows.norm(dim=1)
    longest = lengths.max() if len(lengths) else lengths.sum()
    ball = rows / longest if longest > 0 else rows
    height = (1 - ball.square().sum(1)).clamp_min(0).sqrt()
    return torch.cat([ball, height[:, None]], 1)


def as_queries(units: Tensor) -> Tensor:
    """(U, K) -> (U, K + 1): the same units as those that search, [x / |x|, 0]."""
    rows = units.double()
    lengths = rows.norm(dim=1, keepdim=True)
    return torch.cat([rows / torch.where(lengths > 0, lengths, 1.0), torch.zeros(len(rows), 1)], 1)


def collisions(items: Tensor, queries: Tensor | None = None) -> Tensor:
    """(U, U): the share of tables in which query u meets item v; symmetric where there are no queries of their own.

    items, queries: (L, U) buckets.
    """
    searching = items if queries is None else queries
    met = torch.zeros(items.shape[1], items.shape[1], dtype=torch.float64)
    for mine, theirs in zip(searching, items, strict=True):
        met += mine[:, None] == theirs[None, :]
    return met / max(1, len(items))
