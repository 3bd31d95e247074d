"""What TVM's importer lacks, or gets wrong: rows in its own terms, and operators in the terms of other operators."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import get_decompositions
from torch.nn import functional
from tvm import relax

from hashcompile.core.layers import arguments

Row = Callable[[fx.Node, Any], Any]  # what the importer makes of a node

aten = torch.ops.aten

# Rows of the importer's that take a symbolic size for a number, or sort for a maximum; other terms do better.
WEAK = frozenset(
    (
        "native_group_norm.default",
        "_native_batch_norm_legit.no_stats",
        "empty.memory_format",
        "var.correction",
        "max.dim",
    )
)


def embedding(node: fx.Node, importer: Any) -> Any:
    """Rows of a dense table: NaN for an id that has none, where TVM by itself would read what lies there."""
    table, ids = importer.env[node.args[0]], importer.env[node.args[1]]
    emit = importer.block_builder.emit
    rows = emit(relax.op.take(table, emit(relax.op.reshape(ids, [-1])), axis=0, mode="nan"))
    return emit(relax.op.reshape(rows, [*ids.ty.shape.values, table.ty.shape.values[-1]]))


def part(node: fx.Node, importer: Any) -> Any:
    """A slice up to a size of another tensor, which PyTorch knows to lie within: so many values it has, not at most."""
    given = arguments(node)
    end = given["end"]
    known = isinstance(end, fx.Node) and str(end.meta["val"]) == str(node.meta["val"].shape[given["dim"]])
    if not known or given["start"] not in (None, 0) or given["step"] != 1:
        return importer._slice(node)
    x, size = importer.env[node.args[0]], importer.env[end]
    return importer.block_builder.emit(
        relax.op.strided_slice(x, [given["dim"]], [0], [size], [1], assume_inbound=True)
    )


def select(node: fx.Node, importer: Any) -> Any:
    """An index that counts from the end, of which TVM by itself would read what lies in front."""
    x, dim, index = importer.env[node.args[0]], node.args[1], node.args[2]
    place = x.ty.shape.values[dim] + index if isinstance(index, int) and index < 0 else index
    return importer.block_builder.emit(relax.op.take(x, relax.prim_value(place), dim))


def extreme(reduce: Callable[..., Any]) -> Row:
    """The row of amax or amin."""

    def row(node: fx.Node, importer: Any) -> Any:
        given = arguments(node)
        x = importer.env[node.args[0]]
        return importer.block_builder.emit(reduce(x, list(given["dim"]) or None, given["keepdim"]))

    return row


def matmul(node: fx.Node, importer: Any) -> Any:
    """Of the type of its factors, where the importer's own is always in float32."""
    x, w = (importer.env[factor] for factor in node.args)
    return importer.block_builder.emit(relax.op.matmul(x, w))


def addmm(node: fx.Node, importer: Any) -> Any:
    given = arguments(node)
    if given["alpha"] != 1 or given["beta"] != 1:
        return importer._addmm(node)
    bias, x, w = (importer.env[given[name]] for name in ("self", "mat1", "mat2"))
    emit = importer.block_builder.emit
    return emit(relax.op.add(bias, emit(relax.op.matmul(x, w))))


ROWS: dict[str, Row] = {
    "addmm.default": addmm,
    **dict.fromkeys(("mm.default", "bmm.default", "matmul.default"), matmul),
    "embedding.default": embedding,
    "slice.Tensor": part,
    "select.int": select,
    "amax.default": extreme(relax.op.max),
    "amin.default": extreme(relax.op.min),
}


def max_dim(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return x.amax(dim, keepdim), x.argmax(dim, keepdim)


def min_dim(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return x.amin(dim, keepdim), x.argmin(dim, keepdim)


def kthvalue(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    found = [every.narrow(dim, k - 1, 1) for every in x.sort(dim)]
    values, indices = found if keepdim else (each.squeeze(dim) for each in found)
    return values, indices


def cdist(x: Tensor, y: Tensor, p: float, _mode: int | None) -> Tensor:
    return torch.linalg.vector_norm(x.unsqueeze(-2) - y.unsqueeze(-3), p, -1)


def normalized(x: Tensor, dims: list[int], epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """(x - mean) / deviation over `dims`, the mean, and 1 / deviation."""
    mean = x.mean(dims, keepdim=True)
    moved = x - mean
    inverse = (moved.square().mean(dims, keepdim=True) + epsilon).rsqrt()
    return moved * inverse, mean, inverse


def with_affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Channels of x (B, C, ...) times `weight` (C), plus `bias` (C)."""
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    x = x if weight is None else x * weight.view(shape)
    return x if bias is None else x + bias.view(shape)


def group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    batch: int,
    channels: int,
    pixels: int,
    groups: int,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    parts, mean, inverse = normalized(x.reshape(batch, groups, channels // groups * pixels), [2], epsilon)
    return with_affine(parts.reshape(x.shape), weight, bias), mean.squeeze(2), inverse.squeeze(2)


def own_batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, _training: bool, _momentum: float, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """A batch norm with the statistics of its own input, which is what an instance norm comes to."""
    dims = [dim for dim in range(x.ndim) if dim != 1]
    parts, mean, inverse = normalized(x, dims, epsilon)
    return with_affine(parts, weight, bias), mean.flatten(), inverse.flatten()


def instance_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    own_statistics: bool,
    _momentum: float,
    epsilon: float,
    _cudnn: bool,
) -> Tensor:
    if own_statistics:
        return with_affine(normalized(x, list(range(2, x.ndim)), epsilon)[0], weight, bias)
    assert mean is not None and variance is not None
    inverse = (variance + epsilon).rsqrt()
    return with_affine(with_affine(x, inverse, -mean * inverse), weight, bias)


def variance(
    x: Tensor, dims: list[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> Tensor:
    dims = dims or list(range(x.ndim))
    total = (x - x.mean(dims, keepdim=True)).square().sum(dims, keepdim)
    count: Any = prod(x.shape[dim] for dim in dims)
    correction = 1 if correction is None else correction
    if isinstance(count, int):
        return total / max(0, count - correction)
    # the importer divides by numbers that it knows, and by tensors
    return total / (torch.ones_like(x).sum(dims, keepdim) - correction).clamp(min=0)


def floor_divide(x: Tensor, y: Tensor | float) -> Tensor:
    """As Python has it: of the quotient that is left when the remainder is taken off, which 1.0 // 0.1 needs."""
    floating = y.is_floating_point() if isinstance(y, Tensor) else isinstance(y, float)
    if not floating and not x.is_floating_point():
        divisor = y if isinstance(y, Tensor) else torch.full((), y, dtype=x.dtype)
        return torch.div(x, divisor, rounding_mode="floor")
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    divisor = y if isinstance(y, Tensor) else torch.full((), y, dtype=x.dtype)
    rest = torch.fmod(x, divisor)
    quotient = (x - rest) / divisor
    quotient = torch.where(rest.sign() * divisor.sign() < 0, quotient - 1, quotient)
    return (quotient + 0.5).floor()  # a whole number, but for the rounding of the quotient


def im2col(
    x: Tensor, kernel: list[int], dilation: list[int], padding: list[int], stride: list[int]
) -> Tensor:
    """(B, C, H, W) -> (B, C * taps, places), every tap a slice."""
    if x.ndim == 3:
        return im2col(x[None], kernel, dilation, padding, stride)[0]
    x = functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    places = [(x.shape[2 + d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1 for d in range(2)]
    taps = []
    for tap in product(*map(range, kernel)):
        part = x
        for d in range(2):
            first = tap[d] * dilation[d]
            part = aten.slice.Tensor(part, 2 + d, first, first + (places[d] - 1) * stride[d] + 1, stride[d])
        taps.append(part)
    return torch.stack(taps, 2).flatten(3).flatten(1, 2)


def col2im(
    x: Tensor, size: list[int], kernel: list[int], dilation: list[int], padding: list[int], stride: list[int]
) -> Tensor:
    """(B, C * taps, places) -> (B, C, *size): of every tap an image with zeros between its places, and their sum."""
    if x.ndim == 2:
        return col2im(x[None], size, kernel, dilation, padding, stride)[0]
    whole = [size[d] + 2 * padding[d] for d in range(2)]
    places = [(whole[d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1 for d in range(2)]
    parts = x.unflatten(2, places).unflatten(1, (-1, prod(kernel)))
    images = []
    for i, tap in enumerate(product(*map(range, kernel))):
        y = parts[:, :, i, :, None, :, None]
        y = functional.pad(y, (0, stride[1] - 1, 0, 0, 0, stride[0] - 1)).flatten(4, 5).flatten(2, 3)
        begin = [tap[d] * dilation[d] for d in range(2)]
        have = [(places[d] - 1) * stride[d] + 1 for d in range(2)]
        left, right = begin, [whole[d] - begin[d] - have[d] for d in range(2)]
        y = y[:, :, : have[0], : have[1]]
        images.append(functional.pad(y, (left[1], right[1], left[0], right[0])))
    rows, columns = (slice(padding[d], padding[d] + size[d]) for d in range(2))
    return sum(images[1:], images[0])[:, :, rows, columns]


def empty(size: list[int], *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    return torch.full(size, 0, dtype=dtype)


def hypot(x: Tensor, y: Tensor) -> Tensor:
    return (x * x + y * y).sqrt()


def rrelu(
    x: Tensor, noise: Tensor, low: float = 1 / 8, high: float = 1 / 3, *_: Any
) -> tuple[Tensor, Tensor]:
    """In inference, where the slope is the mean one."""
    return torch.where(x > 0, x, x * ((low + high) / 2)), noise


# Before PyTorch tells them in its own terms, which the importer gets wrong.
EARLY: dict[Any, Callable[..., Any]] = {
    aten.instance_norm.default: instance_norm,
    aten.floor_divide.default: floor_divide,
    aten.im2col.default: im2col,
    aten.col2im.default: col2im,
}

DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.var.correction: variance,
    aten.native_group_norm.default: group_norm,
    aten._native_batch_norm_legit.no_stats: own_batch_norm,
    aten.empty.memory_format: empty,
    aten.max.dim: max_dim,
    aten.min.dim: min_dim,
    aten.kthvalue.default: kthvalue,
    aten._cdist_forward.default: cdist,
    aten.hypot.default: hypot,
    aten.rrelu_with_noise_functional.default: rrelu,
}


def decompositions(operators: set[Any]) -> dict[Any, Any]:
    """Of those of `operators` that have one: ours, else PyTorch's."""
    ours = {each: DECOMPOSITIONS[each] for each in operators & DECOMPOSITIONS.keys()}
    return {**get_decompositions([*operators - ours.keys()]), **ours}
