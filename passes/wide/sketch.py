"""Sketches of rows and inputs, and which rows an input is near enough to.

What is the same for all rows leaves the order of the classes alone, so rows are taken from their mean, and what of a
score does not depend on how an input differs from the mean input m joins the bias:

    score(n, x) = (w[n] - mean w) . (x - m) + c[n] + what all rows share,    c[n] = b[n] + (w[n] - mean w) . m

SimHash (`core/lsh.py`) turns both sides into signs. A distance of d of B bits tells an angle of pi d / B, and so

    estimate(n, x) = |w[n] - mean w| r cos(pi d / B) + c[n],    r = mean |x - m|

A row is a candidate where its estimate reaches a threshold that is the same for all: it is compared as a limit of d,
another for each row, so lengths and biases count without a transform that makes all rows as long as the longest.
(Each bit is a hash table of two buckets; SLIDE's "hard thresholding" likewise asks in how many tables a row was met.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hashcompile.core.lsh import random_planes

ALWAYS = 255  # a limit, and the largest distance that is told from others


@dataclass(frozen=True)
class Index:
    """planes: (K, B) and start: (B,) float32; sketches: (B / 8, N) and limit: (N,) uint8."""

    planes: Tensor
    start: Tensor
    sketches: Tensor
    limit: Tensor

    @property
    def bits(self) -> int:
        return len(self.start)

    def distances(self, x: Tensor) -> Tensor:
        """(M, N) int64, of `x: (M, K)`."""
        queries = signs(x.float() @ self.planes + self.start)
        return hamming(queries, unpacked(self.sketches))

    def candidates(self, x: Tensor) -> Tensor:
        """(M, N) bool of `x: (M, K)`: the rows that the kernel computes; all where there are none."""
        near = self.distances(x).clamp_max(ALWAYS) <= self.limit
        return near | ~near.any(1, keepdim=True)


@dataclass(frozen=True)
class Geometry:
    """What the formula knows of the rows: (N, K) and (N,), float64."""

    rows: Tensor
    offset: Tensor  # c
    length: Tensor  # |w - mean w| r
    centre: Tensor  # (K,), m

    @classmethod
    def of(cls, rows: Tensor, bias: Tensor | None, inputs: Tensor) -> Geometry:
        """rows: (N, K); inputs: (M, K), M > 0."""
        centred = rows.double() - rows.double().mean(0)
        centre = inputs.double().mean(0)
        offset = centred @ centre
        reach = (inputs.double() - centre).norm(dim=1).mean()
        if bias is not None:
            offset = offset + bias.double()
        return cls(centred, offset, centred.norm(dim=1) * reach, centre)

    def estimates(self, distance: Tensor, bits: int) -> Tensor:
        """(M, N) float64 of `distance: (M, N)`."""
        return self.length * torch.cos(math.pi / bits * distance) + self.offset

    def limits(self, threshold: float, bits: int) -> Tensor:
        """(N,) uint8: the largest distance at which each row's estimate reaches the threshold."""
        gap = threshold - self.offset
        cosine = torch.where(self.length > 0, gap / self.length, torch.where(gap > 0, 1.0, -1.0))
        distance = torch.acos(cosine.clamp(-1, 1)) * bits / math.pi
        slack = 1e-9 * bits  # a row that sets the threshold reaches it
        return (distance + slack).floor().clamp(0, ALWAYS).to(torch.uint8)


def sketch(geometry: Geometry, bits: int, seed: int) -> Index:
    """An index whose limits are still to be found: all rows are candidates."""
    planes = random_planes(geometry.rows.shape[1], bits, 1, seed)[0]
    sketches = packed(signs(geometry.rows @ planes))
    start = -(geometry.centre @ planes)
    always = torch.full((len(geometry.rows),), ALWAYS, dtype=torch.uint8)
    return Index(planes.float(), start.float(), sketches, always)


def signs(projections: Tensor) -> Tensor:
    return projections >= 0


def packed(bits: Tensor) -> Tensor:
    """(N, B) bool -> (B / 8, N) uint8, bit j in bit j % 8 of byte j / 8."""
    weights = (2 ** torch.arange(8)).to(torch.uint8)
    return (bits.view(len(bits), -1, 8).to(torch.uint8) * weights).sum(2).to(torch.uint8).T.contiguous()


def unpacked(sketches: Tensor) -> Tensor:
    """Inverse of `packed`."""
    bits = (sketches.T[:, :, None].to(torch.int32) >> torch.arange(8, dtype=torch.int32)) & 1
    return bits.flatten(1).bool()


def hamming(queries: Tensor, rows: Tensor) -> Tensor:
    """(M, N) int64 of (M, B) and (N, B) bool: exact, for sums of ones below 2^24 are."""
    a, b = queries.float(), rows.float()
    return (a.sum(1, keepdim=True) + b.sum(1) - 2 * (a @ b.T)).round().long()
