"""The C ABI as it is: structures that tests fill with anything, calls on buffers that tests place."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_float, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from typing import Any

import numpy as np
import numpy.typing as npt

from hashcompile_runtime import NativeError, _native
from hashcompile_runtime._native import Weight

AttentionDesc, ConvDesc, Epilogue, Exec, ParallelFor, PoolDesc = (
    _native._AttentionDesc,
    _native._ConvDesc,
    _native._Epilogue,
    _native._Exec,
    _native._ParallelFor,
    _native._PoolDesc,
)
Error, Shape, WeightDesc, Window = _native._Error, _native._Shape, _native._WeightDesc, _native._Window
LIBRARY = _native._library()


class Quant(Structure):
    _fields_ = [("scale", c_float), ("zero", c_int32)]


class Step(Structure):
    _fields_ = [
        ("size", c_uint32),
        ("kind", c_int32),
        ("input", c_int32),
        ("other", c_int32),
        ("output", c_int32),
        ("flag", c_uint32),
        ("activation", c_int32),
        ("low", c_float),
        ("high", c_float),
        ("weight", c_void_p),
        ("window", Window),
        ("channels_before", c_int64),
        ("channels_after", c_int64),
    ]


class ChainDesc(Structure):
    _fields_ = [
        ("size", c_uint32),
        ("input_count", c_uint32),
        ("tensors", POINTER(Quant)),
        ("tensor_count", c_size_t),
        ("steps", POINTER(Step)),
        ("step_count", c_size_t),
        ("outputs", POINTER(c_int32)),
        ("output_count", c_size_t),
    ]


for name, arguments in {
    "hc_chain_open": [POINTER(ChainDesc), POINTER(c_void_p), POINTER(Error)],
    "hc_chain_shapes": [c_void_p, POINTER(Shape), POINTER(Shape), POINTER(Error)],
    "hc_chain_run": [
        c_void_p,
        POINTER(Shape),
        POINTER(c_void_p),
        POINTER(c_void_p),
        POINTER(Exec),
        POINTER(Error),
    ],
}.items():
    getattr(LIBRARY, name).argtypes = arguments
LIBRARY.hc_chain_close.argtypes, LIBRARY.hc_chain_close.restype = [c_void_p], None


def attempt(function: str, *arguments: Any) -> int:
    """Calls it with an error at the end. A failing call says why, and its code is a known one."""
    error = Error()
    code = int(getattr(LIBRARY, function)(*arguments, byref(error)))
    assert 0 <= code <= 4
    assert bool(error.text) == bool(code)
    return code


def call(function: str, *arguments: Any) -> None:
    """`attempt`, but a failure is a NativeError."""
    error = Error()
    if code := getattr(LIBRARY, function)(*arguments, byref(error)):
        assert error.text
        raise NativeError(code, error.text.decode())


def pointer(array: npt.NDArray[Any] | None) -> Any:
    if array is None:
        return None
    kind = {"f": c_float, "u": ctypes.c_uint8, "i": ctypes.c_int64}[array.dtype.kind]
    return array.ctypes.data_as(POINTER(kind))


def attention_desc(*arrays: Any, **fields: Any) -> Any:
    """For q, k, v (B, H, S, D) and a mask or None; `fields` as they stand in the structure, or isa by name."""
    named = {name: fields.pop(name) for name in ("isa", "compute") if name in fields}
    desc = _native._attention_desc(*arrays, **named)
    for name, value in fields.items():
        setattr(desc, name, value)
    return desc


def window(
    kernel: Sequence[int] = (1, 1),
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
) -> Any:
    return _native._window(kernel, strides, dilations, pads)


def conv_desc(x_shape: Sequence[int], *of_window: Any) -> Any:
    return ConvDesc(ctypes.sizeof(ConvDesc), 0, Shape(*x_shape), window(*of_window))


def pool_desc(x_shape: Sequence[int], *of_window: Any, kind: int = 0) -> Any:
    """For x (B, H, W, C)."""
    batch, height, width, channels = x_shape
    size = ctypes.sizeof(PoolDesc)
    return PoolDesc(size, 0, kind, 0, Shape(batch, channels, height, width), window(*of_window))


def step(kind: int, x: int, output: int, *, weight: Weight | None = None, **fields: Any) -> Step:
    defaults = {"size": ctypes.sizeof(Step), "other": -1, "window": window()} | fields
    made = Step(kind=kind, input=x, output=output, weight=weight and weight._handle, **defaults)
    made.keep = weight
    return made


class Chain:
    """An hc_chain, from steps and (scale, zero) of every tensor."""

    def __init__(
        self, inputs: int, steps: Sequence[Step], tensors: Sequence[tuple[float, int]], outputs: Sequence[int]
    ) -> None:
        self.handle, self.outputs, self.keep = c_void_p(), len(outputs), steps
        desc = ChainDesc(
            ctypes.sizeof(ChainDesc),
            inputs,
            (Quant * len(tensors))(*tensors),
            len(tensors),
            (Step * len(steps))(*steps),
            len(steps),
            (c_int32 * len(outputs))(*outputs),
            len(outputs),
        )
        call("hc_chain_open", byref(desc), byref(self.handle))

    def __del__(self) -> None:
        LIBRARY.hc_chain_close(self.handle)

    def shapes(self, *x: Sequence[int]) -> list[tuple[int, ...]]:
        shapes = (Shape * self.outputs)()
        call("hc_chain_shapes", self.handle, (Shape * len(x))(*(Shape(*shape) for shape in x)), shapes)
        return [(s.batch, s.channels, s.height, s.width) for s in shapes]

    def run(self, x: Sequence[npt.NDArray[np.float32]], y: Sequence[npt.NDArray[np.float32]]) -> None:
        shapes = (Shape * len(x))(*(Shape(*image.shape) for image in x))
        pointers = [(c_void_p * len(some))(*(array.ctypes.data for array in some)) for some in (x, y)]
        call("hc_chain_run", self.handle, shapes, *pointers, None)
