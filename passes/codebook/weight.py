"""The code itself: indices into a small table of allowed weights, and one scale for each output channel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from hashcompile.core.encoded import EncodedWeight
from hashcompile.core.entropy import Symbols
from hashcompile.core.errors import ArtifactError
from hashcompile.core.layers import Kind
from hashcompile.core.packing import TILE, layout, pack, unpack
from hashcompile.core.rounding import round_bf16, round_rows
from hashcompile.core.rows import RowView
from hashcompile.core.storage import Storage
from hashcompile.passes.codebook.device import on_codes


class CodebookWeight(EncodedWeight):
    """rows[n, k] = codebook[n // group_rows, indices[n, k]] * scale[n]

    indices: (N, K) uint8, a buffer; codebook: (tables, 2**bits) float32 and scale: (N,) float32, parameters that
    train. group_rows = 0 means one table. (Deep Compression, arXiv 1510.00149, calls this weight sharing.)
    """

    indices: Tensor

    def __init__(
        self, view: RowView, bits: int, group_rows: int, indices: Tensor, codebook: Tensor, scale: Tensor
    ):
        super().__init__(view)
        self.bits = bits
        self.group_rows = group_rows
        self.register_buffer("indices", indices)
        self.codebook = nn.Parameter(codebook)
        self.scale = nn.Parameter(scale)

    def rows(self) -> Tensor:
        if len(self.codebook) == 1:
            values = self.codebook[0][self.indices.int()]
        else:
            group = torch.arange(len(self.indices), device=self.indices.device) // self.group_rows
            values = self.codebook[group[:, None], self.indices.int()]
        return values * self.scale[:, None]

    def on_codes(self, kind: Kind, given: Mapping[str, Any]) -> Tensor | None:
        return on_codes(self, kind, given)

    def scaled(self, factor: Tensor) -> Self:
        return type(self)(
            self.view,
            self.bits,
            self.group_rows,
            self.indices,
            self.codebook.detach(),
            self.scale.detach() * factor,
        )

    def in_int8(self) -> CodebookWeight:
        return self.with_table(round_rows(self.codebook.detach()))

    def in_bf16(self) -> CodebookWeight:
        return self.with_table(round_bf16(self.codebook.detach()))

    def with_table(self, table: Tensor) -> CodebookWeight:
        return CodebookWeight(self.view, self.bits, self.group_rows, self.indices, table, self.scale.detach())

    def joined(self, others: Sequence[EncodedWeight]) -> CodebookWeight | None:
        """Needs groups of rows that fit all parts; a table that must be repeated for that may not cost more than 1%."""
        parts = [self, *(code for code in others if isinstance(code, CodebookWeight))]
        rows = [part.view.size[0] for part in parts]
        groups = [part.group_rows or part.view.size[0] for part in parts]
        plain = all(len(part.view.shape) == 2 and part.bits == self.bits for part in parts)
        if len(parts) <= len(others) or not plain or len({part.view.size[1] for part in parts}) > 1:
            return None
        if all(torch.equal(part.codebook, self.codebook) for part in parts) and len(self.codebook) == 1:
            group_rows, codebook = 0, self.codebook.detach()
        else:
            group_rows = math.gcd(*rows, *groups)
            tables = [
                part.codebook[torch.arange(0, count, group_rows or 1) // (group or 1)]
                for part, count, group in zip(parts, rows, groups, strict=True)
            ]
            codebook = torch.cat(tables).detach()
            repeated = codebook.nbytes - sum(part.codebook.nbytes for part in parts)
            if not group_rows or group_rows % TILE or repeated > sum(part.nbytes for part in parts) / 100:
                return None
        return CodebookWeight(
            RowView((sum(rows), self.view.size[1])),
            self.bits,
            group_rows,
            torch.cat([part.indices for part in parts]),
            codebook,
            torch.cat([part.scale for part in parts]).detach(),
        )

    def packed(self) -> Tensor:
        """The indices in the T16 layout (`hashcompile.core.packing`), uint8."""
        return torch.from_numpy(pack(self.indices.numpy(), self.bits))

    def storage(self) -> dict[str, Tensor]:
        return {"codes": self.packed(), "codebook": self.codebook.detach(), "scale": self.scale.detach()}

    def symbols(self) -> dict[str, Symbols]:
        return {"codes": Symbols(self.indices.flatten(), 2**self.bits, ("codes",))}

    @property
    def nbytes(self) -> int:
        codes = torch.Size(layout(self.bits).shape(*self.view.size)).numel()
        return codes + self.codebook.nbytes + self.scale.nbytes

    def describe(self) -> dict[str, Any]:
        return {"bits": self.bits, "group_rows": self.group_rows}

    @classmethod
    def restore(cls, view: RowView, description: Mapping[str, Any], storage: Storage) -> Self:
        bits, group_rows = description.get("bits"), description.get("group_rows")
        if not isinstance(bits, int) or bits not in range(1, 9):
            raise ArtifactError(f"a codebook weight of {bits!r} bits")
        if not isinstance(group_rows, int) or group_rows < 0 or group_rows % TILE:
            raise ArtifactError(f"a codebook weight with groups of {group_rows!r} rows")
        rows, columns = view.size
        tables = -(-rows // group_rows) if group_rows else 1
        codebook = storage.tensor("codebook", torch.float32, (tables, 2**bits))
        scale = storage.tensor("scale", torch.float32, (rows,))
        if "codes" in storage.coded:
            indices = storage.numbers("codes", view.numel, 2**bits).reshape(rows, columns)
        else:
            codes = storage.tensor("codes", torch.uint8, layout(bits).shape(rows, columns))
            indices = torch.from_numpy(unpack(codes.numpy(), bits, rows, columns))
        return cls(view, bits, group_rows, indices, codebook, scale)
