"""Our kernels as operators of PyTorch: `torch.ops.hashcompile.codebook_linear` and its like.

On a device without kernels of ours those on codebooks decode, and mean the same. Codes are packed in the T16 layout
(`hashcompile.core.packing`); tables and scales are float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional

from hashcompile.core.errors import ConfigError
from hashcompile.core.packing import TILE, unpack
from hashcompile_runtime.cuda import (
    NOTHING,
    Array,
    CudaCall,
    CudaConv,
    CudaDtype,
    CudaKernels,
    codebook_weight,
    cuda_kernels,
    hashed_weight,
)

DTYPES = {torch.float32: CudaDtype.F32, torch.float16: CudaDtype.F16, torch.bfloat16: CudaDtype.BF16}


def kernels_for(device: torch.device) -> CudaKernels | None:
    """The kernels that run on `device`; None where there are none."""
    return cuda_kernels() if device.type == "cuda" else None


def array(values: Tensor | None) -> Array:
    return NOTHING if values is None else Array(values.data_ptr(), values.numel())


def ready(x: Tensor, **tensors: Tensor | None) -> list[Tensor | None]:
    """What kernels can read beside x: codes of bytes, values of x's dtype, all else of float32. Raises ConfigError."""
    types = {"codes": torch.uint8, "values": x.dtype}
    for name, each in tensors.items():
        wanted = types.get(name, torch.float32)
        if each is not None and (each.dtype != wanted or each.device != x.device):
            raise ConfigError(
                f"{name} is {each.dtype} on {each.device}; wanted {wanted}, and {x.device}, where x is"
            )
    return [None if each is None else each.contiguous() for each in tensors.values()]


@contextmanager
def call(kernels: CudaKernels, x: Tensor, y: Tensor, windows: int = 0, rows: int = 0) -> Iterator[CudaCall]:
    """On the device of y and its current stream, with a workspace, which PyTorch hands on in the stream's order."""
    if y.dtype not in DTYPES:
        raise ConfigError(f"no kernel of ours computes {y.dtype}")
    space = torch.empty(kernels.workspace(windows, rows), dtype=torch.uint8, device=y.device)
    stream = torch.cuda.current_stream(y.device).cuda_stream if y.is_cuda else 0
    with torch.cuda.device_of(y) if y.is_cuda else nullcontext():
        yield CudaCall(
            DTYPES[y.dtype], x.data_ptr(), y.data_ptr(), array(space if len(space) else None), stream
        )


def decoded(
    codes: Tensor, codebook: Tensor, scale: Tensor, bits: int, group_rows: int, columns: int
) -> Tensor:
    """W (N, K), float32."""
    rows = len(scale)
    indices = torch.from_numpy(unpack(codes.cpu().numpy(), bits, rows, columns)).to(codes.device).int()
    group = torch.arange(rows, device=codes.device) // (group_rows or max(1, rows))
    return codebook[group[:, None], indices] * scale[:, None]


@torch.library.custom_op("hashcompile::codebook_linear", mutates_args=())
def codebook_linear(
    x: Tensor,
    codes: Tensor,
    codebook: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    bits: int,
    group_rows: int,
) -> Tensor:
    """x: (..., K) -> (..., N), of x's dtype; bias: (N,) float32."""
    columns, rows = x.shape[-1], len(scale)
    if (kernels := kernels_for(x.device)) is None:
        w = decoded(codes, codebook, scale, bits, group_rows, columns)
        return functional.linear(x.float(), w, bias).to(x.dtype)
    given, y = x.contiguous(), x.new_empty(*x.shape[:-1], rows)
    m = given.numel() // columns if columns else y.numel() // max(1, rows)
    held = ready(x, codes=codes, codebook=codebook, scale=scale, bias=bias)
    weight = codebook_weight(bits, (rows, columns), group_rows, *map(array, held))
    with call(kernels, given, y, m, rows) as taken:
        kernels.linear(weight, taken, m)
    return y


@codebook_linear.register_fake
def _(x, codes, codebook, scale, bias, bits, group_rows):  # type: ignore[no-untyped-def]
    return x.new_empty(*x.shape[:-1], scale.shape[0])


@torch.library.custom_op("hashcompile::codebook_conv2d", mutates_args=())
def codebook_conv2d(
    x: Tensor,
    codes: Tensor,
    codebook: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    bits: int,
    group_rows: int,
    kernel: list[int],
    stride: list[int],
    pads: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """x: (B, C, H, W) -> (B, N, OH, OW), of x's dtype, channels innermost in memory; codes of rows
    (kh, kw, C / groups), pads: top, left, bottom, right.
    """
    rows, columns = len(scale), kernel[0] * kernel[1] * (x.shape[1] // groups)
    y = conv_output(x, rows, kernel, stride, pads, dilation)
    if (kernels := kernels_for(x.device)) is None:
        w = decoded(codes, codebook, scale, bits, group_rows, columns)
        w = w.view(rows, *kernel, -1).permute(0, 3, 1, 2)
        padded = functional.pad(x.float(), (pads[1], pads[3], pads[0], pads[2]))
        made = functional.conv2d(padded, w, bias, stride, 0, dilation, groups)
        return y.copy_(made)
    given = x.contiguous(memory_format=torch.channels_last)
    held = ready(x, codes=codes, codebook=codebook, scale=scale, bias=bias)
    weight = codebook_weight(bits, (rows, columns), group_rows, *map(array, held))
    steps = given.stride(), y.stride()
    with call(kernels, given, y, y.numel() // max(1, rows), rows) as taken:
        kernels.conv2d(weight, taken, CudaConv(given.shape, kernel, stride, pads, dilation, groups, *steps))
    return y


def conv_output(
    x: Tensor, rows: int, kernel: list[int], stride: list[int], pads: list[int], dilation: list[int]
) -> Tensor:
    sizes = [
        (x.shape[2 + d] + pads[d] + pads[2 + d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1
        for d in range(2)
    ]
    return torch.empty(
        (x.shape[0], rows, *sizes), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )


@codebook_conv2d.register_fake
def _(x, codes, codebook, scale, bias, bits, group_rows, kernel, stride, pads, dilation, groups):  # type: ignore[no-untyped-def]
    return conv_output(x, scale.shape[0], kernel, stride, pads, dilation)


@torch.library.custom_op("hashcompile::codebook_embedding", mutates_args=())
def codebook_embedding(
    ids: Tensor,
    codes: Tensor,
    codebook: Tensor,
    scale: Tensor,
    bits: int,
    group_rows: int,
    columns: int,
    dtype: torch.dtype,
) -> Tensor:
    """ids: (...) int64 -> (..., K). On a GPU an id out of range gives NaN."""
    if (kernels := kernels_for(ids.device)) is None:
        return decoded(codes, codebook, scale, bits, group_rows, columns)[ids].to(dtype)
    given, y = ids.contiguous(), codes.new_empty(*ids.shape, columns, dtype=dtype)
    held = ready(ids, codes=codes, codebook=codebook, scale=scale)
    weight = codebook_weight(bits, (len(scale), columns), group_rows, *map(array, held))
    with call(kernels, given, y) as taken:
        kernels.embedding(weight, taken, given.numel())
    return y


@codebook_embedding.register_fake
def _(ids, codes, codebook, scale, bits, group_rows, columns, dtype):  # type: ignore[no-untyped-def]
    return ids.new_empty(*ids.shape, columns, dtype=dtype)


@torch.library.custom_op("hashcompile::hashed_linear", mutates_args=())
def hashed_linear(
    x: Tensor, values: Tensor, scale: Tensor | None, bias: Tensor | None, seed: int, rows: int
) -> Tensor:
    """x: (..., K) -> (..., N = rows), for a weight of tiles; values of x's dtype, scale (N,) or (1,) and bias float32.

    Has no meaning of its own where there are no kernels: who hashes decodes.
    """
    kernels = wanted(kernels_for(x.device), x)
    columns, given = x.shape[-1], x.contiguous()
    y = x.new_empty(*x.shape[:-1], rows)
    held = ready(x, values=values, scale=scale, bias=bias)
    weight = hashed_weight(seed, (rows, columns), TILE, *map(array, held))
    m = given.numel() // max(1, columns)
    with call(kernels, given, y, m, rows) as taken:
        kernels.linear(weight, taken, m)
    return y


@hashed_linear.register_fake
def _(x, values, scale, bias, seed, rows):  # type: ignore[no-untyped-def]
    return x.new_empty(*x.shape[:-1], rows)


@torch.library.custom_op("hashcompile::hashed_embedding", mutates_args=())
def hashed_embedding(
    ids: Tensor, values: Tensor, scale: Tensor | None, seed: int, side: int, rows: int, columns: int
) -> Tensor:
    """ids: (...) int64 -> (..., K = columns), of the dtype of the values; an id out of range gives NaN."""
    kernels = wanted(kernels_for(ids.device), ids)
    given, y = ids.contiguous(), values.new_empty(*ids.shape, columns)
    held = [values.contiguous(), *ready(ids, scale=scale)]
    weight = hashed_weight(seed, (rows, columns), side, *map(array, held))
    with call(kernels, given, y) as taken:
        kernels.embedding(weight, taken, given.numel())
    return y


@hashed_embedding.register_fake
def _(ids, values, scale, seed, side, rows, columns):  # type: ignore[no-untyped-def]
    return values.new_empty(*ids.shape, columns)


def wanted(kernels: CudaKernels | None, x: Tensor) -> CudaKernels:
    if kernels is None:
        raise ConfigError(f"no kernel of ours multiplies hashed weights on {x.device}: decode them")
    return kernels
