"""The C ABI of the CUDA kernels (hashcompile_cuda.h) through ctypes: arrays are addresses in the device's memory.

No torch here either: whoever owns the memory gives its addresses, and a stream.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import byref, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from enum import IntEnum
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from ._abi import _Error, _Shape, _Window
from ._errors import NativeError, RuntimeLibraryError
from ._native import _window

_ABI_VERSION = 1


class CudaDtype(IntEnum):
    """Of activations and outputs."""

    F32 = 0
    F16 = 1
    BF16 = 2


class CudaPath(IntEnum):
    """Which kernel multiplies; for measurements."""

    AUTO = 0
    GEMV = 1
    GEMM = 2


class Array(NamedTuple):
    """Numbers in the device's memory."""

    address: int
    count: int


NOTHING = Array(0, 0)


class _Codebook(ctypes.Structure):
    _fields_ = [
        ("size", c_uint32),
        ("bits", c_uint32),
        ("rows", c_int64),
        ("columns", c_int64),
        ("group_rows", c_int64),
        ("codes", c_void_p),
        ("codes_bytes", c_size_t),
        ("codebook", c_void_p),
        ("codebook_len", c_size_t),
        ("scale", c_void_p),
        ("scale_len", c_size_t),
        ("bias", c_void_p),
        ("bias_len", c_size_t),
    ]


class _Hashed(ctypes.Structure):
    _fields_ = [
        ("size", c_uint32),
        ("seed", c_uint32),
        ("rows", c_int64),
        ("columns", c_int64),
        ("side", c_int64),
        ("values", c_void_p),
        ("values_len", c_size_t),
        ("scale", c_void_p),
        ("scale_len", c_size_t),
        ("bias", c_void_p),
        ("bias_len", c_size_t),
    ]


class _Call(ctypes.Structure):
    _fields_ = [
        ("size", c_uint32),
        ("dtype", c_int32),
        ("path", c_int32),
        ("reserved", c_uint32),
        ("x", c_void_p),
        ("y", c_void_p),
        ("workspace", c_void_p),
        ("workspace_bytes", c_size_t),
        ("stream", c_void_p),
    ]


class _Conv(ctypes.Structure):
    _fields_ = [
        ("size", c_uint32),
        ("reserved", c_uint32),
        ("x", _Shape),
        ("window", _Window),
        ("groups", c_int64),
        ("x_steps", c_int64 * 4),
        ("y_steps", c_int64 * 4),
    ]


class CudaCall(NamedTuple):
    """What every call takes: addresses of x, y and a workspace (0: none), and a stream."""

    dtype: CudaDtype
    x: int
    y: int
    workspace: Array = NOTHING  # its count is in bytes
    stream: int = 0
    path: CudaPath = CudaPath.AUTO


class CudaConv(NamedTuple):
    """A convolution of x (B, C, H, W) = shape; steps are distances between numbers, dim by dim."""

    shape: Sequence[int]
    kernel: Sequence[int]
    strides: Sequence[int]
    pads: Sequence[int]  # top, left, bottom, right
    dilations: Sequence[int]
    groups: int
    x_steps: Sequence[int]
    y_steps: Sequence[int]


def codebook_weight(
    bits: int,
    size: tuple[int, int],
    group_rows: int,
    codes: Array,
    codebook: Array,
    scale: Array,
    bias: Array = NOTHING,
) -> Any:
    """Of (N, K) = size."""
    arrays = (*codes, *codebook, *scale, *bias)
    return _Codebook(ctypes.sizeof(_Codebook), bits, *size, group_rows, *arrays)


def hashed_weight(
    seed: int, size: tuple[int, int], side: int, values: Array, scale: Array = NOTHING, bias: Array = NOTHING
) -> Any:
    """Of (N, K) = size; values of the dtype of the calls."""
    return _Hashed(ctypes.sizeof(_Hashed), seed, *size, side, *values, *scale, *bias)


class CudaKernels:
    """The kernels of the library at `path`. Methods raise NativeError for what does not fit."""

    def __init__(self, path: Path) -> None:
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise RuntimeLibraryError(f"{path} cannot be loaded: {error}") from error
        library, call, error = self._library, ctypes.POINTER(_Call), ctypes.POINTER(_Error)
        codebook, hashed = ctypes.POINTER(_Codebook), ctypes.POINTER(_Hashed)
        signatures: dict[str, list[Any]] = {
            "hc_cuda_linear": [codebook, call, c_int64, error],
            "hc_cuda_conv2d": [codebook, call, ctypes.POINTER(_Conv), error],
            "hc_cuda_embedding": [codebook, call, c_int64, error],
            "hc_cuda_hashed_linear": [hashed, call, c_int64, error],
            "hc_cuda_hashed_embedding": [hashed, call, c_int64, error],
        }
        for name, arguments in signatures.items():
            getattr(library, name).restype, getattr(library, name).argtypes = c_int32, arguments
        library.hc_cuda_abi_version.restype = c_uint32
        library.hc_cuda_workspace.restype = c_size_t
        library.hc_cuda_workspace.argtypes = [c_int64, c_int64]
        if (version := library.hc_cuda_abi_version()) != _ABI_VERSION:
            raise RuntimeLibraryError(f"{path} speaks ABI {version}, this package {_ABI_VERSION}: reinstall")

    def workspace(self, m: int, rows: int) -> int:
        """Bytes with which a product of `m` rows by a weight of `rows` runs at its fastest."""
        return int(self._library.hc_cuda_workspace(m, rows))

    def linear(self, weight: Any, call: CudaCall, m: int) -> None:
        """x: (m, K) -> y: (m, N)."""
        hashed = isinstance(weight, _Hashed)
        self._run("hc_cuda_hashed_linear" if hashed else "hc_cuda_linear", weight, call, m)

    def embedding(self, weight: Any, call: CudaCall, count: int) -> None:
        """x: (count,) int64 -> y: (count, K)."""
        hashed = isinstance(weight, _Hashed)
        self._run("hc_cuda_hashed_embedding" if hashed else "hc_cuda_embedding", weight, call, count)

    def conv2d(self, weight: Any, call: CudaCall, conv: CudaConv) -> None:
        """x: (B, C, H, W) -> y: (B, N, OH, OW)."""
        window = _window(conv.kernel, conv.strides, conv.dilations, conv.pads)
        steps = (c_int64 * 4)(*conv.x_steps), (c_int64 * 4)(*conv.y_steps)
        given = _Conv(ctypes.sizeof(_Conv), 0, _Shape(*conv.shape), window, conv.groups, *steps)
        self._run("hc_cuda_conv2d", weight, call, byref(given))

    def _run(self, name: str, weight: Any, call: CudaCall, last: Any) -> None:
        given = _Call(
            ctypes.sizeof(_Call), call.dtype, call.path, 0, call.x, call.y, *call.workspace, call.stream
        )
        error = _Error()
        if code := getattr(self._library, name)(byref(weight), byref(given), last, byref(error)):
            raise NativeError(code, error.text.decode())


def cuda_library_path() -> Path | None:
    """The library of CUDA kernels; None where this package was built without nvcc."""
    path = files(__package__) / "libhashcompile_cuda.so"
    return Path(str(path)) if path.is_file() else None


@cache
def cuda_kernels() -> CudaKernels | None:
    """The CUDA kernels; None where this package was built without nvcc."""
    path = cuda_library_path()
    return CudaKernels(path) if path else None
