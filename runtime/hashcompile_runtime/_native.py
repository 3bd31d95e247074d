"""The C ABI through ctypes, numpy in and out: for tests and benchmarks. Models run through `session`."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ctypes import (
    POINTER,
    byref,
    c_int32,
    c_int64,
    c_uint8,
    c_void_p,
)
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ._abi import (
    _FLOATS,
    _IDS,
    _SIGNATURES,
    _AttentionDesc,
    _ConvDesc,
    _Epilogue,
    _Error,
    _Exec,
    _HashedDesc,
    _Kernel,
    _MatMulDesc,
    _NormDesc,
    _ParallelFor,
    _PoolDesc,
    _Shape,
    _SoftmaxDesc,
    _WeightDesc,
    _WideDesc,
    _Window,
)
from ._errors import NativeError, RuntimeLibraryError

_ABI_VERSION = 2
_OUT_OF_RANGE = 2
FLOAT, INT8, BF16 = 0, 1, 2
X_LAST, Y_LAST = 1, 2
ACTIVATIONS = (
    "none",
    "relu",
    "clip",
    "gelu",
    "gelu_tanh",
    "silu",
    "hard_swish",
)  # in the order of hc_activation
_SUFFIXES = ("so", "dylib", "dll")


class KernelInfo(NamedTuple):
    name: str  # operation, activation type, index width, ISA
    isa: str  # instruction set, as HC_ISA spells it
    bits: int  # of an index; 0 for a kernel that sees none
    selected: bool  # taken for new weights here
    runnable: bool  # this CPU has the instructions


def library_path() -> Path:
    """The native library: hand it to `SessionOptions.register_custom_ops_library`, or load its C ABI."""
    for suffix in _SUFFIXES:
        path = files(__package__) / f"libhashcompile_runtime.{suffix}"
        if path.is_file():
            return Path(str(path))
    raise RuntimeLibraryError("the native library is missing: reinstall hashcompile-runtime")


def tvm_archive_path() -> Path:
    """Our kernels with the function by which libraries of TVM call them: an archive to link into such a library."""
    path = files(__package__) / "libhashcompile_tvm.a"
    if path.is_file():
        return Path(str(path))
    raise RuntimeLibraryError("the archive of kernels for TVM is missing: reinstall hashcompile-runtime")


def source_path() -> Path:
    """The sources of the library and the archive, with their CMakeLists.txt, for a machine of another kind."""
    path = files(__package__) / "source"
    if (path / "CMakeLists.txt").is_file():
        return Path(str(path))
    raise RuntimeLibraryError("the runtime's sources are missing: reinstall hashcompile-runtime")


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(library_path()))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    if (version := library.hc_abi_version()) != _ABI_VERSION:
        raise RuntimeLibraryError(f"the library speaks ABI {version}, this package {_ABI_VERSION}: reinstall")
    return library


def kernels() -> list[KernelInfo]:
    """Every kernel of the library's table."""
    found: list[KernelInfo] = []
    kernel = _Kernel()
    while _library().hc_kernel_get(len(found), byref(kernel)) != _OUT_OF_RANGE:
        flags = bool(kernel.selected), bool(kernel.runnable)
        found.append(KernelInfo(kernel.name.decode(), kernel.isa.decode(), kernel.bits, *flags))
    return found


def cpu_features() -> dict[str, bool]:
    """The CPU features that dispatch looks at, and whether this CPU and system have them."""
    found: dict[str, bool] = {}
    present = c_int32()
    while name := _library().hc_cpu_feature(len(found), byref(present)):
        found[name.decode()] = bool(present.value)
    return found


def _isa_id(name: str) -> int:
    isa = 0
    while found := _library().hc_isa_name(isa):
        if found.decode() == name:
            return isa
        isa += 1
    raise NativeError(1, f"unknown instruction set {name!r}")


def _check(code: int, error: _Error) -> None:
    if code:
        raise NativeError(code, error.text.decode())


def _floats(array: npt.NDArray[np.float32] | None) -> Any:
    return None if array is None else array.ctypes.data_as(_FLOATS)


def _float32(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(values, np.float32)


def _executor(threads: int) -> Any:
    """An hc_exec on `threads` Python threads , None for the caller's own."""
    if threads == 1:
        return None

    def parallel_for(_host: int, task: Callable[[Any, int], None], arg: Any, count: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda i: task(arg, i), range(count)))

    return byref(_Exec(None, _ParallelFor(parallel_for)))


def _window(
    kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int]
) -> _Window:
    window = _Window()
    window.kernel[:], window.strides[:], window.dilations[:], window.pads[:] = (
        kernel,
        strides,
        dilations,
        pads,
    )
    return window


class Epilogue(NamedTuple):
    """What follows a product: activation(product + bias + residual)."""

    activation: str = "none"
    low: float = 0.0  # of "clip"
    high: float = 0.0
    residual: npt.NDArray[np.float32] | None = None  # of the shape of the output


def _epilogue(of: Epilogue | None, y: npt.NDArray[np.float32]) -> Any:
    if of is None:
        return None
    if of.residual is not None and of.residual.shape != y.shape:
        raise NativeError(1, f"residual has shape {of.residual.shape}; wanted {y.shape}")
    activation = ACTIVATIONS.index(of.activation)
    residual = None if of.residual is None else _float32(of.residual)
    epilogue = _Epilogue(ctypes.sizeof(_Epilogue), activation, of.low, of.high, _floats(residual))
    epilogue.keep = residual
    return byref(epilogue)


class Weight:
    """An open hc_weight.

    codes: uint8 in the T16 layout. codebook: (G, 2^bits) float32. scale, bias: (N,) float32.
    """

    def __init__(
        self,
        codes: npt.NDArray[np.uint8],
        codebook: npt.ArrayLike,
        scale: npt.ArrayLike,
        bias: npt.ArrayLike | None = None,
        *,
        bits: int,
        columns: int,
        group_rows: int = 0,
        groups: int = 1,
        compute: int = FLOAT,
        isa: str = "auto",
    ) -> None:
        self._handle = c_void_p()
        self._codes = np.ascontiguousarray(codes, np.uint8)  # borrowed by the library
        book, scales = _float32(codebook), _float32(scale)
        biases = None if bias is None else _float32(bias)
        self.shape = (scales.size, columns)
        desc = _WeightDesc(
            size=ctypes.sizeof(_WeightDesc),
            bits=bits,
            compute=compute,
            isa=_isa_id(isa),
            rows=scales.size,
            columns=columns,
            group_rows=group_rows,
            groups=groups,
            codes=self._codes.ctypes.data_as(POINTER(c_uint8)),
            codes_bytes=self._codes.size,
            codebook=_floats(book),
            codebook_len=book.size,
            scale=_floats(scales),
            scale_len=scales.size,
            bias=_floats(biases),
            bias_len=0 if biases is None else biases.size,
        )
        error = _Error()
        _check(_library().hc_weight_open(byref(desc), byref(self._handle), byref(error)), error)

    def __del__(self) -> None:
        if self._handle:
            _library().hc_weight_close(self._handle)

    def linear(
        self, x: npt.ArrayLike, threads: int = 1, epilogue: Epilogue | None = None
    ) -> npt.NDArray[np.float32]:
        """x: (..., K) -> (..., N)."""
        rows = _float32(x)
        if rows.shape[-1] != self.shape[1]:
            raise NativeError(1, f"x has {rows.shape[-1]} columns; wanted {self.shape[1]}")
        y = np.empty((*rows.shape[:-1], self.shape[0]), np.float32)
        m, error = int(np.prod(rows.shape[:-1])), _Error()
        tail = _epilogue(epilogue, y), _executor(threads), byref(error)
        _check(_library().hc_linear(self._handle, _floats(rows), m, _floats(y), *tail), error)
        return y

    def conv2d(
        self,
        x: npt.ArrayLike,
        kernel: Sequence[int],
        strides: Sequence[int] = (1, 1),
        pads: Sequence[int] = (0, 0, 0, 0),
        dilations: Sequence[int] = (1, 1),
        threads: int = 1,
        epilogue: Epilogue | None = None,
        channels_last: int = 0,
    ) -> npt.NDArray[np.float32]:
        """x: (B, C, H, W) -> (B, N, OH, OW); pads: top, left, bottom, right.

        channels_last: X_LAST where x is (B, H, W, C); Y_LAST for (B, OH, OW, N), and a residual like it; or both.
        """
        image, error = _float32(x), _Error()
        batch, *size = image.shape
        if len(size) == 3 and channels_last & X_LAST:
            size = [size[2], *size[:2]]
        desc = _ConvDesc(
            ctypes.sizeof(_ConvDesc),
            channels_last,
            _Shape(batch, *size),
            _window(kernel, strides, dilations, pads),
        )
        height, width = c_int64(), c_int64()
        _check(_library().hc_conv2d_output(byref(desc), byref(height), byref(width), byref(error)), error)
        out = [height.value, width.value]
        out.insert(2 if channels_last & Y_LAST else 0, self.shape[0])
        y = np.empty((batch, *out), np.float32)
        into = _floats(y), _epilogue(epilogue, y), _executor(threads), byref(error)
        _check(_library().hc_conv2d(self._handle, byref(desc), _floats(image), *into), error)
        return y

    def embedding(self, ids: npt.ArrayLike, threads: int = 1) -> npt.NDArray[np.float32]:
        """ids: (...) int64 -> (..., K)."""
        wanted = np.ascontiguousarray(ids, np.int64)
        y = np.empty((*wanted.shape, self.shape[1]), np.float32)
        pointer, execute, error = wanted.ctypes.data_as(_IDS), _executor(threads), _Error()
        into = _floats(y), execute, byref(error)
        _check(_library().hc_embedding(self._handle, pointer, wanted.size, *into), error)
        return y

    def decode(self) -> npt.NDArray[np.float32]:
        """The dense weight (N, K)."""
        dense, error = np.empty(self.shape, np.float32), _Error()
        _check(_library().hc_decode(self._handle, _floats(dense), byref(error)), error)
        return dense


def feed_forward(
    up: Weight,
    down: Weight,
    x: npt.ArrayLike,
    between: Epilogue,
    after: Epilogue | None = None,
    threads: int = 1,
) -> npt.NDArray[np.float32]:
    """x: (..., K) -> (..., N2): `up` (N1, K), then `down` (N2, N1)."""
    rows = _float32(x)
    if rows.shape[-1] != up.shape[1]:
        raise NativeError(1, f"x has {rows.shape[-1]} columns; wanted {up.shape[1]}")
    m, error = int(np.prod(rows.shape[:-1])), _Error()
    hidden, y = (np.empty((*rows.shape[:-1], n), np.float32) for n in (0, down.shape[0]))
    tail = _epilogue(between, hidden), _epilogue(after, y), _executor(threads), byref(error)
    _check(_library().hc_feed_forward(up._handle, down._handle, _floats(rows), m, _floats(y), *tail), error)
    return y


def _attention_desc(
    q: npt.NDArray[np.float32],
    k: npt.NDArray[np.float32],
    v: npt.NDArray[np.float32],
    mask: npt.NDArray[Any] | None,
    isa: str = "auto",
    compute: int = FLOAT,
) -> _AttentionDesc:
    """Sizes and steps of what `attention` takes; the mask bool or float32."""
    batch, heads, length, _ = q.shape
    desc = _AttentionDesc(size=ctypes.sizeof(_AttentionDesc), isa=_isa_id(isa), compute=compute)
    desc.batch, desc.heads, desc.queries, desc.key_size = q.shape
    desc.kv_heads, desc.keys, desc.value_size = v.shape[1:]
    for steps, array in ((desc.q_steps, q), (desc.k_steps, k), (desc.v_steps, v)):
        steps[:] = [step // array.itemsize for step in array.strides[:3]]
    if mask is not None:
        desc.mask = 2 if mask.dtype == np.bool_ else 1
        whole = np.broadcast_to(mask, (batch, heads, length, k.shape[2]))
        desc.mask_steps[:] = [step // mask.itemsize for step in whole.strides]
    return desc


def attention(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    mask: npt.ArrayLike | None = None,
    *,
    scale: float,
    causal: bool = False,
    hidden_is_zero: bool = True,
    compute: int = FLOAT,
    threads: int = 1,
    isa: str = "auto",
) -> npt.NDArray[np.float32]:
    """q: (B, H, Sq, D), k: (B, Hkv, Sk, D), v: (B, Hkv, Sk, Dv) with features side by side, tokens and heads anywhere;
    mask: bool or float that broadcasts to (B, H, Sq, Sk) -> (B, Sq, H * Dv).
    """
    queries, keys, values = (np.asarray(x, np.float32) for x in (q, k, v))
    shown = None if mask is None else np.asarray(mask)
    if shown is not None and shown.dtype != np.bool_:
        shown = shown.astype(np.float32)
    desc = _attention_desc(queries, keys, values, shown, isa, compute)
    desc.scale, desc.causal, desc.hidden_is_zero = scale, causal, hidden_is_zero
    y, error = np.empty((*queries.shape[::2][:2], queries.shape[1] * values.shape[3]), np.float32), _Error()
    pointer = None if shown is None else c_void_p(shown.ctypes.data)
    into = pointer, _floats(y), _executor(threads), byref(error)
    _check(_library().hc_attention(byref(desc), *map(_floats, (queries, keys, values)), *into), error)
    return y


def norm(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None,
    bias: npt.ArrayLike | None = None,
    residual: npt.ArrayLike | None = None,
    *,
    epsilon: float,
    centered: bool = True,
    threads: int = 1,
    isa: str = "auto",
) -> npt.NDArray[np.float32]:
    """x, residual: (..., N); weight, bias: (N,) -> (..., N). Layer norm where `centered`, else RMS norm."""
    rows = _float32(x)
    weights, biases, added = (
        None if values is None else _float32(values) for values in (weight, bias, residual)
    )
    desc = _NormDesc(size=ctypes.sizeof(_NormDesc), isa=_isa_id(isa), centered=centered, epsilon=epsilon)
    desc.rows, desc.columns = int(np.prod(rows.shape[:-1])), rows.shape[-1]
    desc.weight, desc.bias = _floats(weights), _floats(biases)
    y, error = np.empty_like(rows), _Error()
    into = _floats(y), _executor(threads), byref(error)
    _check(_library().hc_norm(byref(desc), _floats(rows), _floats(added), *into), error)
    return y


def pool(
    x: npt.ArrayLike,
    kernel: Sequence[int],
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    *,
    average: bool = False,
    counts_padding: bool = False,
    threads: int = 1,
    isa: str = "auto",
) -> npt.NDArray[np.float32]:
    """x: (B, H, W, C) -> (B, OH, OW, C), the maximum or the average of a window; pads: top, left, bottom, right."""
    image, error = _float32(x), _Error()
    batch, height, width, channels = image.shape
    shape, window = _Shape(batch, channels, height, width), _window(kernel, strides, dilations, pads)
    desc = _PoolDesc(ctypes.sizeof(_PoolDesc), _isa_id(isa), average, counts_padding, shape, window)
    as_conv = _ConvDesc(ctypes.sizeof(_ConvDesc), 0, shape, window)
    rows, columns = c_int64(), c_int64()
    _check(_library().hc_conv2d_output(byref(as_conv), byref(rows), byref(columns), byref(error)), error)
    y = np.empty((batch, rows.value, columns.value, channels), np.float32)
    _check(
        _library().hc_pool(byref(desc), _floats(image), _floats(y), _executor(threads), byref(error)), error
    )
    return y


def matmul(
    x: npt.ArrayLike, w: npt.ArrayLike, *, transposed: bool = False, threads: int = 1, isa: str = "auto"
) -> npt.NDArray[np.float32]:
    """x: (B, M, K); w: (B, K, N), or (B, N, K) where `transposed` -> (B, M, N)."""
    left, right = _float32(x), _float32(w)
    desc = _MatMulDesc(size=ctypes.sizeof(_MatMulDesc), isa=_isa_id(isa), transposed=transposed)
    desc.batch, desc.rows, desc.inner = left.shape
    desc.columns = right.shape[1 if transposed else 2]
    y, error = np.empty((*left.shape[:2], desc.columns), np.float32), _Error()
    into = _floats(y), _executor(threads), byref(error)
    _check(_library().hc_matmul(byref(desc), _floats(left), _floats(right), *into), error)
    return y


def softmax(
    x: npt.ArrayLike, *, log: bool = False, threads: int = 1, isa: str = "auto"
) -> npt.NDArray[np.float32]:
    """x: (..., N) -> (..., N), softmax over N or its logarithm."""
    rows = _float32(x)
    desc = _SoftmaxDesc(size=ctypes.sizeof(_SoftmaxDesc), isa=_isa_id(isa), log=log)
    desc.rows, desc.columns = int(np.prod(rows.shape[:-1])), rows.shape[-1]
    y, error = np.empty_like(rows), _Error()
    _check(
        _library().hc_softmax(byref(desc), _floats(rows), _floats(y), _executor(threads), byref(error)), error
    )
    return y


def activate(
    x: npt.ArrayLike, epilogue: Epilogue, *, threads: int = 1, isa: str = "auto"
) -> npt.NDArray[np.float32]:
    """activation(x + residual), of the shape of x."""
    values = _float32(x)
    y, error = np.empty_like(values), _Error()
    into = _floats(values), values.size, _floats(y), _executor(threads), byref(error)
    _check(_library().hc_activate(_isa_id(isa), _epilogue(epilogue, y), *into), error)
    return y


class _Linear:
    """An open layer of one of the kinds that the library calls hc_<kind>; shape: (N, K)."""

    _kind: str
    _handle: c_void_p
    shape: tuple[int, int]

    def _open(self, desc: ctypes.Structure) -> None:
        self._handle, error = c_void_p(), _Error()
        opening = getattr(_library(), f"hc_{self._kind}_open")
        _check(opening(byref(desc), byref(self._handle), byref(error)), error)

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            getattr(_library(), f"hc_{self._kind}_close")(self._handle)

    def linear(self, x: npt.ArrayLike, threads: int = 1) -> npt.NDArray[np.float32]:
        """x: (..., K) -> (..., N)."""
        rows = _float32(x)
        if rows.shape[-1] != self.shape[1]:
            raise NativeError(1, f"x has {rows.shape[-1]} columns; wanted {self.shape[1]}")
        y = np.empty((*rows.shape[:-1], self.shape[0]), np.float32)
        m, error = int(np.prod(rows.shape[:-1])), _Error()
        run = getattr(_library(), f"hc_{self._kind}_linear")
        _check(run(self._handle, _floats(rows), m, _floats(y), _executor(threads), byref(error)), error)
        return y


class Wide(_Linear):
    """An open hc_wide: outputs are -infinity but at the candidates.

    weight: (N, K), planes: (K, bits), start: (bits,), bias: (N,) float32; sketches: (bits / 8, N), limit: (N,) uint8.
    In the place of the weight, codes: (N, ceil(K * code_bits / 8)) uint8, table: (2**code_bits,), scale: (N,) float32.
    """

    _kind = "wide"

    def __init__(
        self,
        weight: npt.ArrayLike | None,
        planes: npt.ArrayLike,
        start: npt.ArrayLike,
        sketches: npt.ArrayLike,
        limit: npt.ArrayLike,
        bias: npt.ArrayLike | None = None,
        *,
        codes: npt.ArrayLike | None = None,
        table: npt.ArrayLike | None = None,
        scale: npt.ArrayLike | None = None,
        isa: str = "auto",
    ) -> None:
        floats = {"weight": weight, "planes": planes, "start": start, "bias": bias}
        floats |= {"table": table, "scale": scale}
        held = {name: _float32(values) for name, values in floats.items() if values is not None}
        plain = {"sketches": sketches, "limit": limit, "codes": codes}
        bytes_ = {n: np.ascontiguousarray(v, np.uint8) for n, v in plain.items() if v is not None}
        self._held = held, bytes_  # borrowed by the library
        self.shape = (bytes_["limit"].size, len(held["planes"]))
        desc = _WideDesc(size=ctypes.sizeof(_WideDesc), isa=_isa_id(isa), bits=held["start"].size)
        desc.code_bits = held["table"].size.bit_length() - 1 if "table" in held else 0
        desc.rows, desc.columns = self.shape
        for kind, arrays in ((_FLOATS, held), (POINTER(c_uint8), bytes_)):
            for name, array in arrays.items():
                setattr(desc, name, array.ctypes.data_as(kind))
                setattr(desc, f"{name}_len", array.size)
        self._open(desc)


class Hashed(_Linear):
    """An open hc_hashed. values: (256 * tiles,), scale, bias: (N,) float32."""

    _kind = "hashed"

    def __init__(
        self,
        values: npt.ArrayLike,
        scale: npt.ArrayLike | None = None,
        bias: npt.ArrayLike | None = None,
        *,
        shape: tuple[int, int],
        seed: int,
        isa: str = "auto",
    ) -> None:
        self.shape = shape
        desc = _HashedDesc(size=ctypes.sizeof(_HashedDesc), isa=_isa_id(isa), seed=seed)
        desc.rows, desc.columns = shape
        floats = {"values": values, "scale": scale, "bias": bias}
        held = {name: _float32(array) for name, array in floats.items() if array is not None}
        for name, array in held.items():
            setattr(desc, name, _floats(array))
            setattr(desc, f"{name}_len", array.size)
        self._open(desc)
