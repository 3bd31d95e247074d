"""The row of an embedding that stands for padding: where it is zero it stays so, and has no say in any value."""

from __future__ import annotations

import torch
from torch import Tensor

from hashcompile.core.layers import Layer


def zero_padding(layer: Layer, rows: Tensor) -> int | None:
    """The row of padding of a layer with the weights `rows: (N, K)`, where it is zero; else None."""
    row = layer.padding
    return row if row is not None and row < len(rows) and not bool(rows[row].any()) else None


def others(count: int, padding: int | None) -> slice | Tensor:
    """What takes those of `count` rows that are hashed."""
    return slice(None) if padding is None else torch.arange(count) != padding
