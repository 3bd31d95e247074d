"""A codebook for what is kept: table[index] times a scale for each row, zeros left out of everything."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hashcompile.core.kmeans import kmeans_1d
from hashcompile.passes.sparse.surgeon import Round


@dataclass(frozen=True)
class Code:
    table: Tensor  # (2**bits,) float64, sorted, of largest magnitude 1
    scale: Tensor  # (N,) float64

    def rounding(self, part: slice) -> Round:
        """To the nearest that some of the rows can store."""
        scale = self.scale[part]
        safe = torch.where(scale > 0, scale, 1.0)
        return lambda values, _: self.table[self.nearest(values / safe)] * scale

    def nearest(self, values: Tensor) -> Tensor:
        cuts = (self.table[1:] + self.table[:-1]) / 2
        return torch.searchsorted(cuts, values.contiguous())

    def indices(self, rows: Tensor, mask: Tensor) -> Tensor:
        """(nnz,) uint8 of `rows: (N, K)`, which need not be exact."""
        safe = torch.where(self.scale > 0, self.scale, 1.0)
        return self.nearest((rows / safe[:, None])[mask]).to(torch.uint8)

    def refitted(self, target: Tensor, rows: Tensor, mask: Tensor, grams: Tensor) -> Code:
        """The scale of each row that comes closest to the outputs of `target`, given its indices; a table of the sign
        of each scale stays what it is, so a scale that would turn is left."""
        sets = (len(grams), -1, rows.shape[1])
        d, w = rows.reshape(sets), target.reshape(sets)
        seen = d @ grams
        square, cross = (seen * d).sum(2).flatten(), (seen * w).sum(2).flatten()
        factor = torch.where(square > 0, cross / torch.where(square > 0, square, 1.0), 1.0)
        return replace(self, scale=self.scale * torch.where(factor > 0, factor, 1.0))


def fit_code(rows: Tensor, mask: Tensor, bits: int, grams: Tensor | None, often: Tensor | None) -> Code:
    """k-means of the kept weights over their row's root mean square; each counts by that, and by its input's energy."""
    count = mask.sum(1).clamp_min(1)
    scale = ((rows * mask).square().sum(1) / count).sqrt()
    safe = torch.where(scale > 0, scale, 1.0)[:, None]
    mass = scale.square()[:, None].expand_as(rows)
    if grams is not None:
        mass = mass * grams.diagonal(dim1=1, dim2=2).clamp_min(0).repeat_interleave(
            len(rows) // len(grams), 0
        )
    if often is not None:
        mass = mass * often.double()[:, None]
    table = torch.from_numpy(kmeans_1d((rows / safe)[mask].numpy(), mass[mask].numpy(), 2**bits))
    unit = float(table.abs().max()) or 1.0
    return Code(table / unit, scale * unit)
