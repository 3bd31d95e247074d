"""The code itself: which weights are kept, and what they are. What trains are the kept ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hashcompile.core.encoded import EncodedWeight
from hashcompile.core.entropy import Symbols
from hashcompile.core.errors import ArtifactError
from hashcompile.core.rounding import round_bf16
from hashcompile.core.rows import RowView
from hashcompile.core.storage import Storage
from hashcompile.passes.sparse import places, planes


class SparseWeight(EncodedWeight):
    """rows (N, K), zero but where `mask` is true; there, row by row, the kept weights."""

    mask: Tensor  # (N, K) bool, a buffer
    second = "hc.Sparse(bits=...) gives kept weights a codebook"

    def __init__(self, view: RowView, mask: Tensor) -> None:
        super().__init__(view)
        self.register_buffer("mask", mask)

    def remark(self) -> str | None:
        """Outputs that are the same whatever comes in."""
        empty = int((~self.mask.any(1)).sum())
        return f"{empty} of {len(self.mask)} rows keep no weight" if empty else None

    def symbols(self) -> dict[str, Symbols]:
        return {"places": places.symbols(self.mask.flatten())}

    @property
    def density(self) -> float:
        """The share of weights that is kept."""
        return float(self.mask.double().mean()) if self.mask.numel() else 0.0

    @classmethod
    def restore(cls, view: RowView, description: Mapping[str, Any], storage: Storage) -> SparseWeight:
        bits = description.get("bits")
        if not isinstance(bits, int) or bits not in range(9):
            raise ArtifactError(f"a sparse weight of {bits!r} bits")
        mask = places.restore(storage, view.numel).reshape(view.size)
        count = int(mask.sum())
        if not bits:
            return SparseValues(view, mask, storage.tensor("values", torch.float32, (count,)))
        codebook = storage.tensor("codebook", torch.float32, (2**bits,))
        scale = storage.tensor("scale", torch.float32, (view.size[0],))
        if "codes" in storage.coded:
            indices = storage.numbers("codes", count, 2**bits)
        else:
            indices = planes.unpack(storage.tensor("codes", torch.uint8, (bits, -(-count // 8))), count)
        return SparseCodes(view, mask, indices, codebook, scale)


class SparseValues(SparseWeight):
    """values: (nnz,) float32, a parameter."""

    def __init__(self, view: RowView, mask: Tensor, values: Tensor) -> None:
        super().__init__(view, mask)
        self.values = nn.Parameter(values)

    def rows(self) -> Tensor:
        return placed(self.mask, self.values)

    def scaled(self, factor: Tensor) -> SparseValues:
        rows = self.rows().detach() * factor[:, None]
        return SparseValues(self.view, self.mask, rows[self.mask])

    def in_bf16(self) -> SparseValues:
        return SparseValues(self.view, self.mask, round_bf16(self.values.detach()))

    def storage(self) -> dict[str, Tensor]:
        return {**places.store(self.mask.flatten()), "values": self.values.detach()}

    def describe(self) -> dict[str, Any]:
        return {"bits": 0}


class SparseCodes(SparseWeight):
    """indices: (nnz,) uint8, a buffer; codebook: (2**bits,) and scale: (N,) float32, parameters."""

    indices: Tensor

    def __init__(self, view: RowView, mask: Tensor, indices: Tensor, codebook: Tensor, scale: Tensor) -> None:
        super().__init__(view, mask)
        self.register_buffer("indices", indices)
        self.codebook = nn.Parameter(codebook)
        self.scale = nn.Parameter(scale)

    @property
    def bits(self) -> int:
        return len(self.codebook).bit_length() - 1

    def rows(self) -> Tensor:
        return placed(self.mask, self.codebook[self.indices.int()]) * self.scale[:, None]

    def scaled(self, factor: Tensor) -> SparseCodes:
        scale = self.scale.detach() * factor
        return SparseCodes(self.view, self.mask, self.indices, self.codebook.detach(), scale)

    def in_bf16(self) -> SparseCodes:
        table = round_bf16(self.codebook.detach())
        return SparseCodes(self.view, self.mask, self.indices, table, self.scale.detach())

    def storage(self) -> dict[str, Tensor]:
        return {
            **places.store(self.mask.flatten()),
            "codes": planes.pack(self.indices, self.bits),
            "codebook": self.codebook.detach(),
            "scale": self.scale.detach(),
        }

    def symbols(self) -> dict[str, Symbols]:
        return super().symbols() | {"codes": Symbols(self.indices, 2**self.bits, ("codes",))}

    def describe(self) -> dict[str, Any]:
        return {"bits": self.bits}


def placed(mask: Tensor, kept: Tensor) -> Tensor:
    """(N, K) of `kept: (nnz,)`, row by row where `mask: (N, K)` is true; 0 elsewhere."""
    return kept.new_zeros(mask.shape).masked_scatter(mask, kept)
