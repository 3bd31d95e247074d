"""The packed function by which a TVM library runs nodes of ours, called through TVM's C ABI."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

CPU, CUDA = 1, 2
INT, TENSOR = 1, 7  # kinds of arguments
TYPES = {torch.float32: (2, 32), torch.int64: (0, 64), torch.float16: (2, 16), torch.bool: (6, 8)}


class DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class Argument(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int32), ("padding", ctypes.c_uint32), ("value", ctypes.c_uint64)]


class Packed:
    """That function of the library at `path`."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.packed = self.library["__tvm_ffi_hc_node"]

    def __call__(self, index: int, *tensors: Tensor, kind: int = CUDA, devices: Sequence[int] = (0,)) -> bool:
        """Did node `index` run? `devices` of the tensors, in turn; strides are told only of what is not dense."""
        kept, given = [], [Argument(INT, 0, index)]
        for tensor, device in zip(tensors, itertools.cycle(devices)):
            shape = (ctypes.c_int64 * tensor.ndim)(*tensor.shape)
            strides = None if tensor.is_contiguous() else (ctypes.c_int64 * tensor.ndim)(*tensor.stride())
            made = DLTensor(
                tensor.data_ptr() or None,
                kind,
                device,
                tensor.ndim,
                *TYPES[tensor.dtype],
                1,
                shape,
                strides,
                0,
            )
            kept += [shape, strides, made]
            given.append(Argument(TENSOR, 0, ctypes.addressof(made)))
        return self.call(given)

    def call(self, given: Sequence[Argument]) -> bool:
        return not self.packed(None, (Argument * len(given))(*given), len(given), None)
