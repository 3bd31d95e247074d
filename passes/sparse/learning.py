"""A codebook of kept weights whose assignments train: zeros stay zero, and every other weight looks for its value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hashcompile.core.assign import nearest, soft, spread, straight_through, within
from hashcompile.core.learning import LearningCode
from hashcompile.core.rows import RowView
from hashcompile.core.storage import Storage
from hashcompile.passes.sparse.weight import SparseCodes, SparseWeight, placed


class LearningSparse(LearningCode):
    """rows[n, k] = q(latent / scale[n]) * scale[n] where the mask is true, with q the nearest entry, or close to it

    All else is zero.

    mask: (N, K) bool, a buffer; latent: (nnz,), codebook: (2**bits,) and scale: (N,), float32 parameters.
    """

    mask: Tensor
    row: Tensor  # (nnz,) int32, of each kept weight
    spread: Tensor  # ()

    def __init__(self, code: SparseCodes, kept: Tensor) -> None:
        """Begin at `code`, with latent weights that take its entries: `kept: (nnz,)` where they do."""
        super().__init__(code.view)
        self.register_buffer("mask", code.mask)
        self.register_buffer("row", code.mask.nonzero()[:, 0].int())
        self.register_buffer("indices", code.indices.clone())
        self.codebook = nn.Parameter(code.codebook.detach().clone())
        self.scale = nn.Parameter(code.scale.detach().clone())
        self.register_buffer("spread", spread(self.codebook.detach()))
        unit = self.unit().detach()
        values = within(kept.detach().float() / unit, self.codebook.detach(), self.indices)
        self.latent = nn.Parameter(values * unit)

    @property
    def bits(self) -> int:
        return len(self.codebook).bit_length() - 1

    def unit(self) -> Tensor:
        """(nnz,): what latent weights are measured in; a row without a size has them as they are."""
        return torch.where(self.scale != 0, self.scale, 1.0)[self.row]

    def rows(self) -> Tensor:
        if self.softly:
            taken = soft(self.latent / self.unit(), self.codebook, self.spread * self.temperature)
        else:  # a scale has the gradient that it has while the entries taken stay the same
            values = self.latent / self.unit().detach()
            indices = self.indices if self.held else nearest(values, self.codebook)
            taken = straight_through(values, self.codebook, indices, not self.held)
        return placed(self.mask, taken) * self.scale[:, None]

    @torch.no_grad()
    def taken(self) -> Tensor:
        return self.indices.clone() if self.held else nearest(self.latent / self.unit(), self.codebook)

    def stored(self) -> SparseCodes:
        table, scale = self.codebook.detach().clone(), self.scale.detach().clone()
        return SparseCodes(self.view, self.mask, self.taken(), table, scale)

    @classmethod
    def restore(cls, view: RowView, description: Mapping[str, Any], storage: Storage) -> SparseWeight:
        return SparseWeight.restore(view, description, storage)
