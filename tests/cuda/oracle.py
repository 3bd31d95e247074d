"""What the CUDA kernels must compute, in float64, and how far off they may be.

Sums are in float32, in any order: each of the K products and additions is off by at most EPS of what is added up so
far, which is at most sum |w x|. Numbers of 16 bits are multiplied exactly; float32 by tensor cores, in two parts each,
misses 3 * 2^-22 of |w x|. Scale, bias and the output round once more each.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hashcompile.core.packing import pack
from hashcompile_runtime.cuda import NOTHING, Array, CudaCall, CudaDtype, CudaPath, codebook_weight
from tests.runtime.guarded import guarded

EPS = 2.0**-24
DTYPES = {torch.float32: CudaDtype.F32, torch.float16: CudaDtype.F16, torch.bfloat16: CudaDtype.BF16}


def beside_forbidden(values: Tensor) -> Tensor:
    """A copy whose end is the end of memory: one byte read too far ends the process."""
    if not values.numel():
        return values.contiguous()
    return torch.from_numpy(guarded(values.contiguous().view(torch.uint8).numpy())).view(values.dtype)


def array(values: Tensor | None) -> Array:
    return NOTHING if values is None else Array(values.data_ptr(), values.numel())


class Layer(NamedTuple):
    bits: int
    indices: Tensor  # (N, K)
    codes: Tensor
    codebook: Tensor  # (G, 2^bits)
    scale: Tensor
    bias: Tensor | None
    group_rows: int

    def native(self) -> Any:
        size = tuple(self.indices.shape)
        arrays = array(self.codes), array(self.codebook), array(self.scale), array(self.bias)
        return codebook_weight(self.bits, size, self.group_rows, *arrays)

    def centroids(self, dtype: torch.dtype) -> Tensor:
        """(N, K) float64, as the kernels for `dtype` see them."""
        rows = torch.arange(len(self.indices)) // (self.group_rows or max(1, len(self.indices)))
        return self.codebook.to(dtype).double()[rows[:, None], self.indices.long()]


def layer(bits: int, N: int, K: int, group_rows: int = 0, bias: bool = True, seed: int = 0) -> Layer:
    rng = np.random.default_rng([bits, N, K, group_rows, seed])
    indices = rng.integers(0, 2**bits, (N, K), np.uint8)
    tables = -(-N // group_rows) if group_rows else 1
    scale = torch.from_numpy(rng.uniform(0.5, 2, N).astype(np.float32))
    return Layer(
        bits,
        torch.from_numpy(indices),
        beside_forbidden(torch.from_numpy(pack(indices, bits))),
        beside_forbidden(torch.from_numpy(rng.normal(size=(tables, 2**bits)).astype(np.float32))),
        beside_forbidden(scale),
        beside_forbidden(torch.from_numpy(rng.normal(size=N).astype(np.float32))) if bias else None,
        group_rows,
    )


def numbers(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    made = torch.from_numpy(np.random.default_rng([*shape, seed]).normal(size=shape).astype(np.float32))
    return beside_forbidden(made.to(dtype))


def call(x: Tensor, y: Tensor, workspace: int = 0, path: CudaPath = CudaPath.AUTO) -> tuple[CudaCall, Tensor]:
    """The call, and its workspace, to be kept as long."""
    room = torch.full((workspace,), 0xFF, dtype=torch.uint8)
    space = Array(room.data_ptr(), workspace) if workspace else NOTHING
    return CudaCall(DTYPES[y.dtype], x.data_ptr(), y.data_ptr(), space, path=path), room


def assert_close(got: Tensor, product: Tensor, size: Tensor, scale: Any, bias: Any, k: int) -> None:
    """`product`, `size`: (...) float64, sum w x and sum |w x| over k numbers; y = product * scale + bias."""
    wanted = product * scale + bias
    split = 3 * 2.0**-22 if got.dtype == torch.float32 else 0.0
    inside = size * abs(scale) * ((k + 4) * EPS + split) + 2 * EPS * abs(torch.as_tensor(bias))
    info = torch.finfo(got.dtype)
    outside = info.eps / 2 * (wanted.abs() + inside) + info.smallest_normal * info.eps
    off = (got.double() - wanted).abs() - inside - outside
    assert not torch.isnan(got).any()
    assert bool((off <= 0).all()), f"off by {off.max()} beyond the tolerance"
