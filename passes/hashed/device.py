"""The PyTorch row: embeddings and linear layers of tiles straight from the values, where there are kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hashcompile.core import device_ops
from hashcompile.core.layers import Kind
from hashcompile.core.packing import TILE

if TYPE_CHECKING:
    from hashcompile.passes.hashed.weight import HashedWeight


def on_codes(code: HashedWeight, kind: Kind, given: Mapping[str, Any]) -> Tensor | None:
    """`given`: the arguments of the layer, by name."""
    (rows, columns), dtype = code.view.size, code.values.dtype
    if dtype not in device_ops.DTYPES:
        return None
    values, scale = code.values.contiguous(), None if code.scale is None else code.scale.float()
    if kind is Kind.EMBEDDING:
        side = TILE if code.tile else 1
        read = torch.ops.hashcompile.hashed_embedding(
            given["indices"].long(), values, scale, code.seed, side, rows, columns
        )
        if code.padding is None:
            return read
        return read.masked_fill((given["indices"] == code.padding)[..., None], 0.0)
    if kind is not Kind.LINEAR or not code.tile or code.padding is not None:
        return None
    x = given["input"]
    if x.dtype != dtype or x.shape[-1] != columns:
        return None
    bias = None if given["bias"] is None else given["bias"].float()
    return torch.ops.hashcompile.hashed_linear(x, values, scale, bias, code.seed, rows)
