"""Rows as codes that are read one by one: `rows[n, k] = codebook[indices[n, k]] * scale[n]`.

The tiles of `core/packing.py` lie so that 32 neighbouring rows are read as one stream; one row of them alone costs the
cache lines of all. Here a row's indices lie together, the first in the lowest bits, and a row begins at a byte.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hashcompile.core.entropy import Symbols
from hashcompile.core.kmeans import kmeans_1d
from hashcompile.core.rounding import round_bf16
from hashcompile.core.storage import Storage


class RowCodes(nn.Module):
    """indices: (N, K) uint8, a buffer; codebook: (2**bits,) and scale: (N,) float32, parameters. bits: 1, 2, 4 or 8."""

    indices: Tensor

    def __init__(self, indices: Tensor, codebook: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("indices", indices)
        self.codebook = nn.Parameter(codebook)
        self.scale = nn.Parameter(scale)

    @property
    def bits(self) -> int:
        return len(self.codebook).bit_length() - 1

    @property
    def row_bytes(self) -> int:
        """What one row costs: its indices and its scale."""
        return pitch(self.indices.shape[1], self.bits) + 4

    def forward(self) -> Tensor:
        return self.codebook[self.indices.int()] * self.scale[:, None]

    def scaled(self, factor: Tensor) -> RowCodes:
        return RowCodes(self.indices, self.codebook.detach(), self.scale.detach() * factor)

    def in_bf16(self) -> RowCodes:
        return RowCodes(self.indices, round_bf16(self.codebook.detach()), self.scale.detach())

    def storage(self) -> dict[str, Tensor]:
        return {
            "codes": packed_rows(self.indices, self.bits),
            "codebook": self.codebook.detach(),
            "scale": self.scale.detach(),
        }

    def symbols(self) -> dict[str, Symbols]:
        return {"codes": Symbols(self.indices.flatten(), 2**self.bits, ("codes",))}

    @classmethod
    def restore(cls, storage: Storage, bits: int, rows: int, columns: int) -> RowCodes:
        """Raises ArtifactError."""
        codebook = storage.tensor("codebook", torch.float32, (2**bits,))
        scale = storage.tensor("scale", torch.float32, (rows,))
        if "codes" in storage.coded:
            indices = storage.numbers("codes", rows * columns, 2**bits).reshape(rows, columns)
        else:
            codes = storage.tensor("codes", torch.uint8, (rows, pitch(columns, bits)))
            indices = unpacked_rows(codes, bits, columns)
        return cls(indices, codebook, scale)


def pitch(columns: int, bits: int) -> int:
    """Bytes of a row's indices."""
    return -(-columns * bits // 8)


def packed_rows(indices: Tensor, bits: int) -> Tensor:
    """(N, K) uint8 -> (N, pitch) uint8."""
    rows, columns = indices.shape
    fields = 8 // bits
    padded = torch.zeros(rows, pitch(columns, bits) * fields, dtype=torch.uint8)
    padded[:, :columns] = indices
    places = 2 ** (bits * torch.arange(fields))
    return (padded.view(rows, -1, fields) * places).sum(2).to(torch.uint8)


def unpacked_rows(codes: Tensor, bits: int, columns: int) -> Tensor:
    """Inverse of `packed_rows`."""
    shifts = (bits * torch.arange(8 // bits)).to(torch.uint8)
    return ((codes[:, :, None] >> shifts) & (2**bits - 1)).flatten(1)[:, :columns].contiguous()


def fit_rows(rows: Tensor, bits: int, energy: Tensor) -> RowCodes:
    """k-means of the weights over their row's root mean square, then the scale of least squares; each weight counts by
    `energy: (K,)`, that of its input. rows: (N, K) float32."""
    exact, mass = rows.double(), energy.double().expand_as(rows)
    scale = exact.square().mean(1).sqrt()
    unit_rows = (exact / torch.where(scale > 0, scale, 1.0)[:, None]).contiguous()
    counts = mass * scale[:, None].square()
    table = torch.from_numpy(kmeans_1d(unit_rows.flatten().numpy(), counts.flatten().numpy(), 2**bits))
    cuts = (table[1:] + table[:-1]) / 2
    indices = torch.searchsorted(cuts, unit_rows)
    plain = table[indices]
    square, cross = (mass * plain.square()).sum(1), (mass * plain * exact).sum(1)
    fitted = torch.where((square > 0) & (cross > 0), cross / torch.where(square > 0, square, 1.0), scale)
    unit = table.abs().max().clamp_min(torch.finfo(torch.float32).tiny)  # both train at the rates of weights
    return RowCodes(indices.to(torch.uint8), (table / unit).float(), (fitted * unit).float())
