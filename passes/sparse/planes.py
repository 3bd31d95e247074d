"""Small whole numbers as bit planes: plane p holds bit p of every number, eight to a byte, lowest bit first."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def pack(values: Tensor, bits: int) -> Tensor:
    """`values: (n,) uint8` below 2**bits -> (bits, ceil(n / 8)) uint8."""
    shifts = np.arange(bits, dtype=np.uint8)[:, None]
    planes = (values.numpy()[None] >> shifts) & 1
    return torch.from_numpy(np.packbits(planes, axis=1, bitorder="little"))


def unpack(planes: Tensor, count: int) -> Tensor:
    """Inverse of `pack`, (count,) uint8."""
    single = np.unpackbits(planes.numpy(), axis=1, count=count, bitorder="little")
    shifts = np.arange(len(planes), dtype=np.uint8)[:, None]
    return torch.from_numpy((single << shifts).sum(0, dtype=np.uint8))


def size(count: int, bits: int) -> int:
    """Bytes."""
    return bits * -(-count // 8)
