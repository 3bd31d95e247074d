"""The code itself: the shared values, and the seed that tells which weight takes which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from hashcompile.core.encoded import EncodedWeight
from hashcompile.core.errors import ArtifactError
from hashcompile.core.layers import Kind
from hashcompile.core.packing import TILE
from hashcompile.core.rounding import round_bf16
from hashcompile.core.rows import RowView
from hashcompile.core.storage import Storage
from hashcompile.passes.hashed.device import on_codes
from hashcompile.passes.hashed.hash import MASK, buckets, hashes

TILE_VALUES = TILE * TILE
WEIGHTS_PER_VALUE = 4096  # at most: a small file cannot ask for a huge matrix
CHUNK = 1 << 20  # hashes computed at a time: 8 MiB in int64


class HashedWeight(EncodedWeight):
    """rows[n, k] = +-values[bucket(n, k)] * scale[n]

    values: (K,) float32, a parameter whose entries gather the gradients of all the weights that take them. scale: (N,)
    float32, or None for ones: a folded batch norm has them. With `tile`, tiles of 16 rows and 16 columns take 256
    consecutive values each, column after column: 16 rows of one column are the 64 bytes that a register holds.

    pooled: weights of all layers that share these values, one Parameter for all of them; the scale is then (1,), or
    (N,) once a batch norm is folded in, and does not train. 0 where nobody shares them.

    padding: a row that is zero, whatever its values, and gives them no gradient; None for no such row.
    """

    index: Tensor  # (N, K) int32 into (values, -values, 0); computed from the seed, and not stored
    scale: Tensor | None

    def __init__(
        self,
        view: RowView,
        values: Tensor,
        seed: int,
        tile: bool,
        scale: Tensor | None = None,
        pooled: int = 0,
        padding: int | None = None,
    ) -> None:
        super().__init__(view)
        self.seed = seed
        self.tile = tile
        self.pooled = pooled
        self.padding = padding
        self.values = values if isinstance(values, nn.Parameter) else nn.Parameter(values)
        scales = None if scale is None else nn.Parameter(scale, requires_grad=not pooled)
        self.register_parameter("scale", scales)
        index = places(*view.size, len(values), seed, tile)
        if padding is not None:
            index[padding] = 2 * len(values)
        self.register_buffer("index", index, persistent=False)

    def rows(self) -> Tensor:
        signed = torch.cat([self.values, -self.values, self.values.new_zeros(1)])
        rows = signed.index_select(0, self.index.flatten()).view(self.index.shape)
        return rows if self.scale is None else rows * self.scale[:, None]

    def on_codes(self, kind: Kind, given: Mapping[str, Any]) -> Tensor | None:
        return on_codes(self, kind, given)

    def scaled(self, factor: Tensor) -> Self:
        scale = factor if self.scale is None else self.scale.detach() * factor
        return self._with(self.values.detach(), scale)

    def in_bf16(self) -> Self:
        scale = None if self.scale is None else self.scale.detach()
        return self._with(round_bf16(self.values.detach()), scale)

    def _with(self, values: Tensor, scale: Tensor | None) -> Self:
        return type(self)(self.view, values, self.seed, self.tile, scale, self.pooled, self.padding)

    def storage(self) -> dict[str, Tensor]:
        if self.pooled:  # what is its own comes first, and tells the layer's name
            assert self.scale is not None
            return {"gain": self.scale.detach(), "pool": self.values.detach()}
        stored = {"values": self.values.detach()}
        return stored if self.scale is None else stored | {"scale": self.scale.detach()}

    @property
    def nbytes(self) -> int:
        """Of a pool, the share that the layer has of all weights in it."""
        if not self.pooled:
            return super().nbytes
        assert self.scale is not None
        return self.scale.nbytes + round(self.values.nbytes * self.view.numel / self.pooled)

    def describe(self) -> dict[str, Any]:
        return {"seed": self.seed, "tile": self.tile, "pooled": self.pooled, "padding": self.padding}

    @classmethod
    def restore(cls, view: RowView, description: Mapping[str, Any], storage: Storage) -> Self:
        seed, tile = description.get("seed"), description.get("tile")
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MASK:
            raise ArtifactError(f"a hashed weight with the seed {seed!r}")
        if not isinstance(tile, bool):
            raise ArtifactError(f"a hashed weight whose tile is {tile!r}")
        pooled = description.get("pooled", 0)
        if isinstance(pooled, bool) or not isinstance(pooled, int) or (pooled and pooled < view.numel):
            raise ArtifactError(f"a hashed weight whose values {pooled!r} weights share")
        values, scale = (
            storage.tensors.get(name) for name in (("pool", "gain") if pooled else ("values", "scale"))
        )
        if values is None or values.dtype != torch.float32 or values.ndim != 1:
            raise ArtifactError("a hashed weight without a vector of float32 values")
        if not len(values) or (tile and len(values) % TILE_VALUES):
            raise ArtifactError(f"a hashed weight of {len(values)} values, tile={tile}")
        if len(values) * WEIGHTS_PER_VALUE < view.numel or view.numel == 0 or min(view.shape) < 0:
            raise ArtifactError(f"a hashed weight of shape {view.shape} with {len(values)} values")
        wanted = (1,) if pooled else view.size[:1]
        if pooled and scale is None:
            raise ArtifactError("a hashed weight of a pool without its gain")
        if scale is not None and (scale.dtype != torch.float32 or tuple(scale.shape) != wanted):
            raise ArtifactError(f"scale is {scale.dtype} {tuple(scale.shape)}, wanted float32 {wanted}")
        padding = description.get("padding")
        if padding is not None and (
            isinstance(padding, bool) or not isinstance(padding, int) or not 0 <= padding < view.size[0]
        ):
            raise ArtifactError(
                f"a hashed weight of {view.size[0]} rows, of which {padding!r} is that of padding"
            )
        return cls(view, values, seed, tile, scale, pooled, padding)


def places(rows: int, columns: int, count: int, seed: int, tile: bool) -> Tensor:
    """Where each weight is in (values, -values), for `count` values: (rows, columns) int32."""
    side = TILE if tile else 1
    within = torch.arange(side)[:, None] + side * torch.arange(side)  # of row and column in a tile
    across = torch.arange(-(-columns // side))
    index = torch.empty(rows, columns, dtype=torch.int32)
    step = max(1, CHUNK // max(1, len(across) * side * side))
    for down in torch.arange(-(-rows // side)).split(step):
        bucket, negative = buckets(hashes(down, across, seed), count // (side * side))
        start = bucket * (side * side) + negative * count
        found = (start[:, None, :, None] + within[:, None]).flatten(2).flatten(0, 1)
        first = int(down[0]) * side
        index[first : first + len(found)] = found[: rows - first, :columns]
    return index
