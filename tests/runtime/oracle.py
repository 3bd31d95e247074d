"""What the kernels must compute, in numpy: dense weights, and the integers of HC_INT8 step by step."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hashcompile.core import packing
from hashcompile_runtime import kernels
from hashcompile_runtime._native import FLOAT, Weight

Float32 = npt.NDArray[np.float32]
EPS = float(np.finfo(np.float32).eps)
DENSE = 32  # bits of codes that are fp32 values
ISAS = sorted({kernel.isa for kernel in kernels() if kernel.runnable})
# Around the edges of rows (8), tiles (16), pairs (32), panels (128), and odd ones.
EDGES = (0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 257)


class Layer(NamedTuple):
    bits: int
    group_rows: int
    codes: npt.NDArray[np.uint8]
    codebook: Float32  # (G, 2^bits)
    scale: Float32  # (N,)
    bias: Float32 | None
    centroids: Float32  # (N, K): the codebook's values, without scale
    groups: npt.NDArray[np.int64]  # (N,): table of each row

    @property
    def dense(self) -> Float32:
        return self.centroids * self.scale[:, None]

    def weight(self, compute: int = FLOAT, isa: str = "auto", groups: int = 1) -> Weight:
        return Weight(
            self.codes,
            self.codebook,
            self.scale,
            self.bias,
            bits=self.bits,
            columns=self.centroids.shape[1],
            group_rows=self.group_rows,
            groups=groups,
            compute=compute,
            isa=isa,
        )


def layer(bits: int, N: int, K: int, *, group_rows: int = 0, bias: bool = True, seed: int = 0) -> Layer:
    """Of 32 bits: the codes are the values."""
    rng = np.random.default_rng([seed, bits, N, K, group_rows])
    if bits == DENSE:
        values = rng.normal(size=(N, K)).astype(np.float32)
        padded = np.pad(values, ((0, -N % 32), (0, 0)))
        by_column = padded.reshape(-(-N // 32), 32, K).swapaxes(1, 2)
        codes = np.frombuffer(by_column.tobytes(), np.uint8).reshape(-(-N // 32), K, 1, 2, 16, 4)
        scale = rng.uniform(0.5, 2, N).astype(np.float32)
        biases = rng.normal(size=N).astype(np.float32) if bias else None
        none = np.zeros((0, 0), np.float32)
        return Layer(bits, 0, codes, none, scale, biases, values, np.zeros(N, np.int64))
    indices = rng.integers(0, 2**bits, (N, K), dtype=np.uint8)
    groups = np.arange(N) // group_rows if group_rows else np.zeros(N, np.int64)
    count = -(-N // group_rows) if group_rows else 1
    codebook = rng.normal(size=(count, 2**bits)).astype(np.float32)
    return Layer(
        bits,
        group_rows,
        packing.pack(indices, bits),
        codebook,
        rng.uniform(0.5, 2, N).astype(np.float32),
        rng.normal(size=N).astype(np.float32) if bias else None,
        codebook[groups[:, None], indices] if N else np.zeros((0, K), np.float32),
        groups,
    )


def int8_weights(N: int, K: int, *, lowest: int = -127, seed: int = 0) -> Layer:
    """8-bit codes that are the quantised weights themselves: entry i holds int8(i), save that 128 holds -127."""
    values = np.random.default_rng([seed, N, K]).integers(lowest, 128, (N, K))
    codebook = np.maximum(np.arange(256).astype(np.uint8).astype(np.int8), -127).astype(np.float32)[None] / 50
    indices = (values & 255).astype(np.uint8)
    scale = np.random.default_rng(seed).uniform(0.5, 2, N).astype(np.float32)
    no_groups = np.zeros(N, np.int64)
    return Layer(8, 0, packing.pack(indices, 8), codebook, scale, None, codebook[0, indices], no_groups)


def activations(*shape: int, seed: int = 0) -> Float32:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def bf16(x: Float32) -> Float32:
    """To the nearest of 8 significant bits, halves to even."""
    bits = x.view(np.uint32)
    half = np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    return ((bits + half) & np.uint32(0xFFFF0000)).view(np.float32)


def period(bits: int) -> int:
    """Columns of a block of codes."""
    return 32 // (bits & -bits)


def exact(of: Layer, x: Float32) -> npt.NDArray[np.float64]:
    """x: (M, K) -> (M, N) in float64."""
    y = x.astype(np.float64) @ of.centroids.astype(np.float64).T * of.scale
    return y if of.bias is None else y + of.bias


def float_bound(of: Layer, x: Float32) -> npt.NDArray[np.float64]:
    """How far fp32 may be from `exact`: K roundings of products and sums, then a scale and a bias."""
    size = np.abs(x).astype(np.float64) @ np.abs(of.centroids).astype(np.float64).T * of.scale
    bias = 0.0 if of.bias is None else np.abs(of.bias)
    return EPS * ((x.shape[1] + 3) * size + 2 * bias) + 1e-37


def quantize(x: Float32) -> tuple[Float32, np.float32]:
    """Integers (as float32, exact) and scale of one row or image."""
    amax = np.abs(x).max(initial=0).astype(np.float32)
    if not np.isfinite(amax):
        return np.zeros_like(x), np.float32(np.nan)
    with np.errstate(divide="ignore", over="ignore"):
        to = np.float32(127) / amax
    q = np.rint(x * to) if np.isfinite(to) else np.zeros_like(x)
    return np.clip(q, -127, 127), amax / np.float32(127)


def quantized_tables(of: Layer) -> tuple[npt.NDArray[np.float64], Float32]:
    """(N, K) integers t, and the table scale of each row (N,)."""
    scale = np.abs(of.codebook).max(1) / np.float32(127)
    row = scale[of.groups]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(row[:, None] > 0, np.rint(of.centroids / row[:, None]), 0)
    return np.clip(t, -127, 127).astype(np.float64), row


def finish(of: Layer, total: npt.NDArray[np.float64], x_scale: Any, table_scale: Float32) -> Float32:
    """Exact sums (..., N) to outputs, in the order of operations that every kernel keeps."""
    both = np.asarray(x_scale, np.float32)[..., None] * table_scale
    y = total.astype(np.float32) * both * of.scale
    return y if of.bias is None else y + of.bias


def int8_linear(of: Layer, x: Float32) -> Float32:
    t, table_scale = quantized_tables(of)
    rows = [quantize(row) for row in x]
    q = np.array([q for q, _ in rows], np.float64).reshape(x.shape)
    return finish(of, q @ t.T, np.array([scale for _, scale in rows], np.float32), table_scale)


def float64_activation(name: str, y: Float32, low: float = -0.5, high: float = 2) -> npt.NDArray[np.float64]:
    """Of values as they are."""
    v = y.astype(np.float64)
    erf = np.vectorize(math.erf, otypes=[float])
    match name:
        case "none":
            return v
        case "relu":
            return np.maximum(v, 0)
        case "clip":
            return np.clip(v, low, high)
        case "gelu":
            return 0.5 * v * (1 + erf(v / math.sqrt(2)))
        case "gelu_tanh":
            return 0.5 * v * (1 + np.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))
        case "silu":
            return v / (1 + np.exp(-v))
        case "hard_swish":
            return v * np.clip(v + 3, 0, 6) / 6
    raise ValueError(name)
