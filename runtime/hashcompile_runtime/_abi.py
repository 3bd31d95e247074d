"""The C ABI as ctypes sees it: the structures and signatures of hashcompile.h, field by field."""

from __future__ import annotations

import ctypes
from ctypes import (
    POINTER,
    c_char,
    c_char_p,
    c_float,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint32,
    c_void_p,
)
from typing import Any


class _Error(ctypes.Structure):
    _fields_ = [("text", c_char * 256)]


_Task = ctypes.CFUNCTYPE(None, c_void_p, c_size_t)
_ParallelFor = ctypes.CFUNCTYPE(None, c_void_p, _Task, c_void_p, c_size_t)


class _Exec(ctypes.Structure):
    _fields_ = [("host", c_void_p), ("parallel_for", _ParallelFor)]


class _WeightDesc(ctypes.Structure):
    _fields_ = [
        ("size", c_uint32),
        ("bits", c_uint32),
        ("compute", c_uint32),
        ("isa", c_int32),
        ("rows", c_int64),
        ("columns", c_int64),
        ("group_rows", c_int64),
        ("groups", c_int64),
        ("codes", POINTER(c_uint8)),
        ("codes_bytes", c_size_t),
        ("codebook", POINTER(c_float)),
        ("codebook_len", c_size_t),
        ("scale", POINTER(c_float)),
        ("scale_len", c_size_t),
        ("bias", POINTER(c_float)),
        ("bias_len", c_size_t),
    ]


class _Window(ctypes.Structure):
    _fields_ = [
        ("kernel", c_int64 * 2),
        ("strides", c_int64 * 2),
        ("dilations", c_int64 * 2),
        ("pads", c_int64 * 4),
    ]


class _Shape(ctypes.Structure):
    _fields_ = [(name, c_int64) for name in ("batch", "channels", "height", "width")]


class _ConvDesc(ctypes.Structure):
    _fields_ = [("size", c_uint32), ("channels_last", c_uint32), ("x", _Shape), ("window", _Window)]


class _PoolDesc(ctypes.Structure):
    _fields_ = [
        ("size", c_uint32),
        ("isa", c_int32),
        ("kind", c_int32),
        ("counts_padding", c_int32),
        ("x", _Shape),
        ("window", _Window),
    ]


class _MatMulDesc(ctypes.Structure):
    _fields_ = [
        ("size", c_uint32),
        ("isa", c_int32),
        ("batch", c_int64),
        ("rows", c_int64),
        ("inner", c_int64),
        ("columns", c_int64),
        ("transposed", c_int32),
        ("reserved", c_uint32),
    ]


class _SoftmaxDesc(ctypes.Structure):
    _fields_ = [
        ("size", c_uint32),
        ("isa", c_int32),
        ("rows", c_int64),
        ("columns", c_int64),
        ("log", c_int32),
        ("reserved", c_uint32),
    ]


class _Epilogue(ctypes.Structure):
    _fields_ = [
        ("size", c_uint32),
        ("activation", c_int32),
        ("low", c_float),
        ("high", c_float),
        ("residual", POINTER(c_float)),
    ]


class _AttentionDesc(ctypes.Structure):
    _fields_ = [
        ("size", c_uint32),
        ("isa", c_int32),
        ("compute", c_uint32),
        ("reserved", c_uint32),
        ("batch", c_int64),
        ("queries", c_int64),
        ("keys", c_int64),
        ("heads", c_int64),
        ("kv_heads", c_int64),
        ("key_size", c_int64),
        ("value_size", c_int64),
        ("q_steps", c_int64 * 3),
        ("k_steps", c_int64 * 3),
        ("v_steps", c_int64 * 3),
        ("mask_steps", c_int64 * 4),
        ("mask", c_int32),
        ("causal", c_int32),
        ("hidden_is_zero", c_int32),
        ("scale", c_float),
    ]


class _NormDesc(ctypes.Structure):
    _fields_ = [
        ("size", c_uint32),
        ("isa", c_int32),
        ("rows", c_int64),
        ("columns", c_int64),
        ("centered", c_int32),
        ("epsilon", c_float),
        ("weight", POINTER(c_float)),
        ("bias", POINTER(c_float)),
    ]


class _WideDesc(ctypes.Structure):
    _fields_ = [
        ("size", c_uint32),
        ("isa", c_int32),
        ("rows", c_int64),
        ("columns", c_int64),
        ("bits", c_int64),
        ("weight", POINTER(c_float)),
        ("weight_len", c_size_t),
        ("bias", POINTER(c_float)),
        ("bias_len", c_size_t),
        ("planes", POINTER(c_float)),
        ("planes_len", c_size_t),
        ("start", POINTER(c_float)),
        ("start_len", c_size_t),
        ("sketches", POINTER(c_uint8)),
        ("sketches_len", c_size_t),
        ("limit", POINTER(c_uint8)),
        ("limit_len", c_size_t),
        ("code_bits", c_int64),
        ("codes", POINTER(c_uint8)),
        ("codes_len", c_size_t),
        ("table", POINTER(c_float)),
        ("table_len", c_size_t),
        ("scale", POINTER(c_float)),
        ("scale_len", c_size_t),
    ]


class _HashedDesc(ctypes.Structure):
    _fields_ = [
        ("size", c_uint32),
        ("isa", c_int32),
        ("rows", c_int64),
        ("columns", c_int64),
        ("seed", c_uint32),
        ("reserved", c_uint32),
        ("values", POINTER(c_float)),
        ("values_len", c_size_t),
        ("scale", POINTER(c_float)),
        ("scale_len", c_size_t),
        ("bias", POINTER(c_float)),
        ("bias_len", c_size_t),
    ]


class _Kernel(ctypes.Structure):
    _fields_ = [
        ("name", c_char * 64),
        ("isa", c_char_p),
        ("isa_id", c_int32),
        ("bits", c_int32),
        ("runnable", c_int32),
        ("selected", c_int32),
    ]


_FLOATS, _IDS = POINTER(c_float), POINTER(c_int64)
_TAIL = POINTER(_Epilogue), POINTER(_Exec), POINTER(_Error)
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "hc_abi_version": (c_uint32, []),
    "hc_cpu_feature": (c_char_p, [c_size_t, POINTER(c_int32)]),
    "hc_isa_name": (c_char_p, [c_int32]),
    "hc_kernel_get": (c_int32, [c_size_t, POINTER(_Kernel)]),
    "hc_codes_bytes": (c_size_t, [c_uint32, c_int64, c_int64]),
    "hc_weight_open": (c_int32, [POINTER(_WeightDesc), POINTER(c_void_p), POINTER(_Error)]),
    "hc_weight_close": (None, [c_void_p]),
    "hc_linear": (c_int32, [c_void_p, _FLOATS, c_size_t, _FLOATS, *_TAIL]),
    "hc_feed_forward": (
        c_int32,
        [c_void_p, c_void_p, _FLOATS, c_size_t, _FLOATS, POINTER(_Epilogue), *_TAIL],
    ),
    "hc_conv2d_output": (c_int32, [POINTER(_ConvDesc), POINTER(c_int64), POINTER(c_int64), POINTER(_Error)]),
    "hc_conv2d": (c_int32, [c_void_p, POINTER(_ConvDesc), _FLOATS, _FLOATS, *_TAIL]),
    "hc_embedding": (c_int32, [c_void_p, _IDS, c_size_t, _FLOATS, POINTER(_Exec), POINTER(_Error)]),
    "hc_attention": (
        c_int32,
        [
            POINTER(_AttentionDesc),
            _FLOATS,
            _FLOATS,
            _FLOATS,
            c_void_p,
            _FLOATS,
            POINTER(_Exec),
            POINTER(_Error),
        ],
    ),
    "hc_norm": (
        c_int32,
        [POINTER(_NormDesc), _FLOATS, _FLOATS, _FLOATS, POINTER(_Exec), POINTER(_Error)],
    ),
    "hc_pool": (c_int32, [POINTER(_PoolDesc), _FLOATS, _FLOATS, POINTER(_Exec), POINTER(_Error)]),
    "hc_matmul": (
        c_int32,
        [POINTER(_MatMulDesc), _FLOATS, _FLOATS, _FLOATS, POINTER(_Exec), POINTER(_Error)],
    ),
    "hc_softmax": (c_int32, [POINTER(_SoftmaxDesc), _FLOATS, _FLOATS, POINTER(_Exec), POINTER(_Error)]),
    "hc_activate": (
        c_int32,
        [c_int32, POINTER(_Epilogue), _FLOATS, c_size_t, _FLOATS, POINTER(_Exec), POINTER(_Error)],
    ),
    "hc_wide_open": (c_int32, [POINTER(_WideDesc), POINTER(c_void_p), POINTER(_Error)]),
    "hc_wide_close": (None, [c_void_p]),
    "hc_wide_linear": (c_int32, [c_void_p, _FLOATS, c_size_t, _FLOATS, POINTER(_Exec), POINTER(_Error)]),
    "hc_hashed_open": (c_int32, [POINTER(_HashedDesc), POINTER(c_void_p), POINTER(_Error)]),
    "hc_hashed_close": (None, [c_void_p]),
    "hc_hashed_linear": (
        c_int32,
        [c_void_p, _FLOATS, c_size_t, _FLOATS, POINTER(_Exec), POINTER(_Error)],
    ),
    "hc_decode": (c_int32, [c_void_p, _FLOATS, POINTER(_Error)]),
}
