"""Indices, scales and tables take turns in lowering the output error E; no turn raises it.

The chunks of rows are worked on side by side; only the tables (G, L) are common to them, and whatever is
summed over chunks is summed in their order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from hashcompile.core.parallel import deterministic_map

from .chunk import Chunk

R = TypeVar("R")

CONJUGATE = 3  # steps of conjugate gradients in one refit of the tables
ENOUGH = 1e-3  # a turn that gains less than this share of E is the last


class Alternation:
    """Chunks of rows and the tables they share."""

    def __init__(self, chunks: list[Chunk], tables: Tensor, threads: int) -> None:
        self.chunks = chunks
        self.tables = tables  # (G, L)
        self.threads = threads

    def each(self, step: Callable[[Chunk], R]) -> list[R]:
        """`step` of every chunk, side by side."""
        return deterministic_map(step, self.chunks, self.threads)

    def total(self, step: Callable[[Chunk], Tensor]) -> Tensor:
        """The sum of `step` over the chunks."""
        return torch.stack(self.each(step)).sum(0)

    def error(self) -> float:
        """E, by the form of the last `run`."""
        return float(self.total(lambda chunk: chunk.error(self.tables)))

    def run(self, turns: int, tables: bool = True, diagonal: bool = False) -> None:
        """Take turns until E gains little, by the diagonal of H alone or by all of it."""
        self.each(lambda chunk: chunk.measure(diagonal, self.tables))
        steps = 1 if self.chunks[0].form.ndim == 2 else CONJUGATE  # one step is exact for a diagonal H
        before = float("inf")
        for _ in range(turns):
            self.each(lambda chunk: chunk.choose(self.tables))
            self.each(lambda chunk: chunk.rescale(self.tables))
            if tables:
                self.refit_tables(steps)
            now = self.error()
            if now >= (1 - ENOUGH) * before:
                break
            before = now

    def refit_tables(self, steps: int) -> None:
        """Entries that lower E, indices and scales given: least squares by conjugate gradients.

        The diagonal of H preconditions. A step costs one product with H, whatever the number of entries, and
        cannot raise E.
        """
        groups = len(self.tables)
        steepness = self.total(lambda chunk: chunk.steepness(groups))
        inverse = torch.where(steepness > 0, 1 / steepness, 0.0)  # an entry that nothing uses stays
        slope = self.total(lambda chunk: chunk.slope(groups))
        direction = inverse * slope
        fall = (slope * direction).sum(1)
        for _ in range(steps):
            bend = self.total(partial(Chunk.bend, direction=direction))
            curvature = (direction * bend).sum(1)
            length = torch.where(curvature > 0, fall / curvature, 0.0)
            self.each(partial(Chunk.move, length=length))
            self.tables = self.tables + length[:, None] * direction
            slope = slope - length[:, None] * bend
            steepest = inverse * slope
            ahead = (slope * steepest).sum(1)
            direction = steepest + torch.where(fall > 0, ahead / fall, 0.0)[:, None] * direction
            fall = ahead
        self.sort_tables()

    def sort_tables(self) -> None:
        """Entries in rising order, indices renamed: the lookup of a nearest entry counts on it."""
        self.tables, order = self.tables.sort(1)
        rank = order.argsort(1)
        self.each(lambda chunk: chunk.relabel(rank))

    def normalise_tables(self) -> None:
        """The largest magnitude of each table becomes 1; scales take up the difference."""
        peak = self.tables.abs().amax(1)
        peak = torch.where(peak > 0, peak, 1.0)
        self.tables = self.tables / peak[:, None]
        for chunk in self.chunks:
            chunk.scale = chunk.scale * peak[chunk.group]
