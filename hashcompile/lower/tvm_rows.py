"""What TVM's importer lacks, or gets wrong: rows in its own terms, and operators in the terms of other operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import get_decompositions
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


ROWS: dict[str, Row] = {
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


def empty(size: list[int], *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    return torch.full(size, 0, dtype=dtype)


def hypot(x: Tensor, y: Tensor) -> Tensor:
    return (x * x + y * y).sqrt()


def rrelu(
    x: Tensor, noise: Tensor, low: float = 1 / 8, high: float = 1 / 3, *_: Any
) -> tuple[Tensor, Tensor]:
    """In inference, where the slope is the mean one."""
    return torch.where(x > 0, x, x * ((low + high) / 2)), noise


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
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
