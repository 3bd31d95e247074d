"""A code whose assignments train: behind every index stands a weight that looks for its allowed value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hashcompile.core.assign import nearest, soft, spread, straight_through, within
from hashcompile.core.learning import LearningCode
from hashcompile.core.rows import RowView
from hashcompile.core.storage import Storage
from hashcompile.passes.codebook.grid import GRID
from hashcompile.passes.codebook.weight import CodebookWeight


class LearningCodebook(LearningCode):
    """rows[n, k] = q(latent[n, k] / scale[n]) * scale[n], with q the nearest entry of the row's table, or close to it

    latent: of the weight's shape, codebook: (tables, 2**bits) and scale: (N,), float32 parameters. How q is found is
    set from outside (`core/learning.py`).

    grid: entries are multiples of 1/127 of the largest magnitude of their table, as the kernels for int8 round them;
    with gradients straight through.
    """

    spread: Tensor  # (tables,)

    def __init__(self, code: CodebookWeight, weight: Tensor, grid: bool) -> None:
        """Begin at `code`, with latent weights that take its entries: `weight`, of the view's shape, where it does."""
        super().__init__(code.view)
        self.bits, self.group_rows, self.grid = code.bits, code.group_rows, grid
        self.codebook = nn.Parameter(code.codebook.detach().clone())
        self.scale = nn.Parameter(code.scale.detach().clone())
        self.register_buffer("indices", code.indices.clone())
        tables = self.tables().detach()
        self.register_buffer("spread", torch.stack([spread(table) for table in tables]))
        unit = self.unit().detach()
        values = (self.view.rows(weight.detach()) / unit).split(self.group)
        parts = zip(values, tables, self.indices.split(self.group), strict=True)
        inside = torch.cat([within(*part) for part in parts]) * unit
        self.latent = nn.Parameter(self.view.weight(inside).contiguous())

    @property
    def group(self) -> int:
        """Rows that share a table."""
        return self.group_rows or max(1, self.view.size[0])

    def unit(self) -> Tensor:
        """(N, 1): what latent weights are measured in; a row without a size has them as they are."""
        return torch.where(self.scale != 0, self.scale, 1.0)[:, None]

    def tables(self) -> Tensor:
        """(tables, 2**bits), on the grid."""
        if not self.grid:
            return self.codebook
        peak = self.codebook.detach().abs().amax(1, keepdim=True)
        step = torch.where(peak > 0, peak, 1.0) / GRID
        return self.codebook + ((self.codebook / step).round() * step - self.codebook).detach()

    def rows(self) -> Tensor:
        unit = self.unit()
        # straight through, a scale has the gradient that it has while the entries taken stay the same
        values = self.view.rows(self.latent) / (unit if self.softly else unit.detach())
        parts = zip(
            values.split(self.group),
            self.tables(),
            self.spread * self.temperature,
            self.indices.split(self.group),
            strict=True,
        )
        taken = [
            soft(part, table, temperature)
            if self.softly
            else straight_through(part, table, held if self.held else nearest(part, table), not self.held)
            for part, table, temperature, held in parts
        ]
        return torch.cat(taken) * self.scale[:, None]

    @torch.no_grad()
    def taken(self) -> Tensor:
        """(N, K) uint8: the entry of every weight."""
        if self.held:
            return self.indices.clone()
        values = (self.view.rows(self.latent) / self.unit()).split(self.group)
        return torch.cat([nearest(*part) for part in zip(values, self.tables(), strict=True)])

    def stored(self) -> CodebookWeight:
        """What becomes of it: an index for every weight."""
        table, scale = self.tables().detach().clone(), self.scale.detach().clone()
        return CodebookWeight(self.view, self.bits, self.group_rows, self.taken(), table, scale)

    @classmethod
    def restore(cls, view: RowView, description: Mapping[str, Any], storage: Storage) -> CodebookWeight:
        return CodebookWeight.restore(view, description, storage)
