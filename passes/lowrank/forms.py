"""The ways in which one weight becomes factors: which product each of them cuts, what it costs, what it gives.

| form    | of       | factors, in the order in which inputs meet them                                             |
|---------|----------|---------------------------------------------------------------------------------------------|
| matrix  | linear   | (r, K), (N, r)                                                                              |
|         | embedding| a table (V, r), (D, r)                                                                      |
| channel | conv     | the kernel with r outputs, 1x1                                                              |
| spatial | conv2d   | a column of taps (r, C, kh, 1), a row of taps (N, r, 1, kw) (Jaderberg, Vedaldi & Zisserman |
|         |          | 2014, arXiv 1405.3866)                                                                      |
| tucker  | conv     | 1x1, the kernel on r1 inputs with r2 outputs, 1x1 (Tucker-2: Kim et al. 2016, arXiv         |
|         |          | 1511.06530)                                                                                 |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from hashcompile.core.reshaping import Size
from hashcompile.passes.lowrank.config import By, LowRank
from hashcompile.passes.lowrank.geometry import Geometry
from hashcompile.passes.lowrank.product import Product, falling, least_rank, principal

GRID = 32  # sizes of the first reduction that a Tucker split looks at
Ranks = tuple[int, ...]


@dataclass(frozen=True)
class Split:
    """Factors, and the rows (N, K) that they multiply to."""

    factors: dict[str, Tensor]  # by name, in the order in which inputs meet them
    rows: Tensor


@dataclass(frozen=True)
class Task:
    """The rows (N, K) to come close to; and what is known of the inputs."""

    rows: Tensor
    gram: Tensor | None
    often: Tensor | None
    by: By

    def product(self, channels: int) -> Product:
        return Product.of(self.rows, channels, self.gram, self.often)


class Form(ABC):
    """One way, for one layer. Ranks are the sizes between the factors."""

    name: str
    task: Task
    geometry: Geometry

    def says(self, ranks: Ranks) -> str:
        by = {"svd": "of the weights", "whitened": "whitened", "pca": "by PCA of the inputs"}[self.task.by]
        sizes = " and ".join(map(str, ranks))
        return f"{self.name} of rank{'s' * (len(ranks) > 1)} {sizes}, {by}"

    @abstractmethod
    def ranks(self, config: LowRank) -> Ranks:
        """Those asked for, or the cheapest that lose no more than the tolerance."""

    @abstractmethod
    def size(self, ranks: Ranks) -> Size:
        """Parameters and multiply-accumulates a sample."""

    @abstractmethod
    def split(self, ranks: Ranks) -> Split: ...


class Matrix(Form):
    """Rows through r numbers: two linear layers, or a convolution with r outputs and one of 1x1."""

    name = "low rank"

    def __init__(self, task: Task, geometry: Geometry) -> None:
        self.task, self.geometry = task, geometry
        self.product = task.product(task.rows.shape[1])
        self.basis = self.product.basis(task.by)

    def ranks(self, config: LowRank) -> Ranks:
        most = min(self.task.rows.shape)
        rank = config.rank or least_rank(self.product.losses(self.basis), config.tolerance)
        return (rounded(rank, config.round_to, most),)

    def size(self, ranks: Ranks) -> Size:
        numel = ranks[0] * sum(self.task.rows.shape)
        return Size(numel, numel * self.geometry.outputs)

    def split(self, ranks: Ranks) -> Split:
        basis = self.basis[: ranks[0]]
        up, down = principal(self.product.told(basis)[:, :, 0], basis)
        return Split({"down": down, "up": up}, up @ down)


class Table(Matrix):
    """A table with r columns, and a linear layer behind what is read of it."""

    def size(self, ranks: Ranks) -> Size:
        numel, read = super().size(ranks), ranks[0] * self.task.rows.shape[1] * self.geometry.read
        return Size(numel.parameters, numel.macs + read)

    def split(self, ranks: Ranks) -> Split:
        split = super().split(ranks)
        # padding is to be zero, and not what rounding leaves of it
        some = self.task.rows.any(1, keepdim=True)
        down, rows = (torch.where(some, each, 0.0) for each in (split.factors["up"], split.rows))
        return Split({"down": down, "up": split.factors["down"].T}, rows)


class Channel(Matrix):
    name = "channel split"

    def split(self, ranks: Ranks) -> Split:
        split = super().split(ranks)
        down, up = split.factors.values()
        shape, ones = self.geometry.shape, (1,) * len(self.geometry.kernel)
        return Split({"down": down.reshape(-1, *shape[1:]), "up": up.reshape(len(up), -1, *ones)}, split.rows)


class Spatial(Form):
    name = "spatial split"

    def __init__(self, task: Task, geometry: Geometry) -> None:
        self.task, self.geometry = task, geometry
        _, channels, height, _ = geometry.shape
        self.product = task.product(channels * height)
        self.basis = self.product.basis(task.by)

    def ranks(self, config: LowRank) -> Ranks:
        most = len(self.basis)
        rank = config.rank or least_rank(self.product.losses(self.basis), config.tolerance)
        return (rounded(rank, config.round_to, most),)

    def size(self, ranks: Ranks) -> Size:
        count, channels, height, width = self.geometry.shape
        column, row = ranks[0] * channels * height, count * ranks[0] * width
        return Size(column + row, column * self.geometry.between + row * self.geometry.outputs)

    def split(self, ranks: Ranks) -> Split:
        count, channels, height, width = self.geometry.shape
        basis = self.basis[: ranks[0]]
        told = self.product.told(basis).movedim(1, 2).reshape(count * width, -1)
        up, down = principal(told, basis)
        rows = (up @ down).reshape(count, width, -1).movedim(1, 2).reshape(count, -1)
        up = up.reshape(count, width, 1, -1).permute(0, 3, 2, 1)
        return Split({"down": down.reshape(-1, channels, height, 1), "up": up}, rows)


class Tucker(Form):
    name = "Tucker-2"

    def __init__(self, task: Task, geometry: Geometry) -> None:
        self.task, self.geometry = task, geometry
        self.product = task.product(geometry.shape[1])
        self.basis = self.product.basis(task.by)

    def ranks(self, config: LowRank) -> Ranks:
        count, channels = self.geometry.shape[:2]
        most, to = len(self.basis), config.round_to
        if config.rank is not None:
            return rounded(config.rank, to, most), rounded(config.rank, to, count)
        told = self.product.explained(self.basis)
        whole = self.product.energy(self.product.rows)
        found: list[Ranks] = [(most, min(count, most * self.geometry.taps))]
        step = max(to, -(-channels // GRID))
        for first in {*range(step, most, step), most}:
            within = told[:, :first].flatten(1)
            parts = torch.linalg.svdvals(within).square()
            losses = falling(parts, whole)
            if losses[-1] <= config.tolerance:
                found.append((first, rounded(least_rank(losses, config.tolerance), to, count)))
        return min(found, key=lambda ranks: (self.size(ranks).macs, ranks))

    def size(self, ranks: Ranks) -> Size:
        (first, last), (count, channels, *_) = ranks, self.geometry.shape
        core = last * first * self.geometry.taps
        into = first * channels if first < channels else 0
        out = count * last if last < count else 0
        macs = into * self.geometry.inputs + (core + out) * self.geometry.outputs
        return Size(into + core + out, macs)

    def split(self, ranks: Ranks) -> Split:
        (first, last), (count, channels, *kernel) = ranks, self.geometry.shape
        basis = self.basis[:first] if first < channels else torch.eye(channels, dtype=torch.float64)
        core = self.product.told(basis)
        factors: dict[str, Tensor] = {}
        ones = (1,) * len(kernel)
        if last < count:
            inner = Product.of(core.flatten(1), first * self.geometry.taps, self.product.reduced_gram(basis))
            outer = inner.basis("whitened")[:last]
            up, flat = principal(inner.told(outer)[:, :, 0], outer)
            core = flat.reshape(-1, first, self.geometry.taps)
            factors["up"] = up.reshape(count, -1, *ones)
        rows = torch.einsum("nrt,rm->nmt", core, basis).flatten(1)
        if first < channels:
            told, down = principal(core.movedim(1, 2).reshape(-1, first), basis)
            core = told.reshape(len(core), self.geometry.taps, -1).movedim(1, 2)
            factors = {"down": down.reshape(-1, channels, *ones), **factors}
        factors["core"] = core.reshape(*core.shape[:2], *kernel)
        if last < count:
            rows = factors["up"].reshape(count, -1) @ rows
        order: tuple[str, ...] = ("down", "core", "up")
        return Split({name: factors[name] for name in order if name in factors}, rows)


def rounded(rank: int, to: int, most: int) -> int:
    """Up to a multiple of `to`; never more than there is."""
    return min(-(-rank // to) * to, most)
