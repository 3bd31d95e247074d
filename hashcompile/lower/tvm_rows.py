"""Rows that TVM's importer lacks, or gets wrong, in its own terms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from tvm import relax, tirx

from hashcompile.core.layers import arguments
from hashcompile.lower.tvm_types import TYPED, Row, no_nan, typed, unequal


def embedding(node: fx.Node, importer: Any) -> Any:
    """Rows of a dense table: NaN for an id that has none, where TVM by itself would read what lies there."""
    table, ids = importer.env[node.args[0]], importer.env[node.args[1]]
    emit = importer.block_builder.emit
    rows = emit(relax.op.take(table, emit(relax.op.reshape(ids, [-1])), axis=0, mode="nan"))
    return emit(relax.op.reshape(rows, [*ids.ty.shape.values, table.ty.shape.values[-1]]))


def index_select(node: fx.Node, importer: Any) -> Any:
    """What lies at places of a dim: NaN outside of it, and of what knows no NaN the last."""
    x, at = importer.env[node.args[0]], importer.env[node.args[2]]
    if not at.ty.shape.values:
        at = importer.block_builder.emit(relax.op.reshape(at, [1]))
    mode = "nan" if node.meta["val"].dtype.is_floating_point else "clip"
    return importer.block_builder.emit(relax.op.take(x, at, node.args[1], mode))


def part(node: fx.Node, importer: Any) -> Any:
    """A slice up to a size of another tensor, which PyTorch knows to lie within: so many values it has, not at most."""
    given = arguments(node)
    if given["dim"] < 0:  # TVM counts dims from the front alone
        given["dim"] += node.meta["val"].ndim
        node.args = tuple(given[name] for name in ("self", "dim", "start", "end", "step"))
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
    x, dim, index = (importer.env.get(each, each) for each in node.args)
    size = x.ty.shape.values[dim]
    if isinstance(index, int):
        place = size + index if index < 0 else index
    else:  # of sizes
        place = tirx.Select(index < 0, size + index, index)
    return importer.block_builder.emit(relax.op.take(x, relax.prim_value(place), dim))


def full(node: fx.Node, importer: Any) -> Any:
    """One number everywhere, of any kind: for infinities and NaN the importer's own row has no code."""
    sizes, value = node.args
    shape: list[Any] = [importer.env.get(size, size) for size in sizes]  # type: ignore[union-attr]
    return importer.block_builder.emit(
        relax.op.broadcast_to(typed(value, node.meta["val"].dtype, importer), relax.ShapeExpr(shape))
    )


def extreme(reduce: Callable[..., Any], beyond: float) -> Row:
    """The row of amax or amin; of bools, which have no bounds, as small numbers.

    beyond: the infinity that TVM's own leaves out, for it begins with the last finite number; NaN it leaves out, too.
    """

    def row(node: fx.Node, importer: Any) -> Any:
        given, emit, dtype = arguments(node), importer.block_builder.emit, node.meta["val"].dtype
        over = (list(given.get("dim", ())) or None, given.get("keepdim", False))
        bools = dtype == torch.bool
        x = typed(given["self"], torch.int8, importer) if bools else importer.env[given["self"]]
        made = emit(reduce(x, *over))
        if not dtype.is_floating_point:
            return emit(relax.op.astype(made, "bool")) if bools else made
        infinite, nan = (typed(value, dtype, importer) for value in (beyond, math.nan))
        known = relax.op.astype(no_nan(x), "int8")
        least = relax.op.astype(relax.op.equal(x, infinite), "int8")
        one, two = (relax.const(number, "int8") for number in (1, 2))
        # of each row, the greatest of: 0 for that infinity, 1 for other numbers, 2 for NaN
        kind = emit(relax.op.max(two - known - least, *over))
        made = emit(relax.op.where(relax.op.less(kind, one), infinite, made))
        return emit(relax.op.where(relax.op.greater(kind, one), nan, made))

    return row


def logical_not(node: fx.Node, importer: Any) -> Any:
    """TVM's own turns a comparison round, which with NaN is false either way."""
    x = importer.env[node.args[0]]
    zero = relax.const(0, str(x.ty.dtype))
    made = relax.op.bitwise_not(x) if str(x.ty.dtype) == "bool" else relax.op.equal(x, zero)
    return importer.block_builder.emit(made)


def isnan(node: fx.Node, importer: Any) -> Any:
    x = importer.env[node.args[0]]
    return importer.block_builder.emit(unequal(x, x))


def matmul(node: fx.Node, importer: Any) -> Any:
    """Of the type of its factors, where the importer's own is always in float32."""
    x, w = (importer.env[factor] for factor in node.args)
    return importer.block_builder.emit(relax.op.matmul(x, w))


def addmm(node: fx.Node, importer: Any) -> Any:
    """`alpha` and `beta` are 1 (see `tvm_decompositions`)."""
    bias, x, w = (importer.env[operand] for operand in node.args)
    emit = importer.block_builder.emit
    return emit(relax.op.add(bias, emit(relax.op.matmul(x, w))))


def scatter(reduction: str) -> Row:
    """Of what the source has, as much as there are indices."""

    def row(node: fx.Node, importer: Any) -> Any:
        _, dim, at, given = node.args
        x, index, source = (importer.env[node.args[i]] for i in (0, 2, 3))
        pairs = zip(at.meta["val"].shape, given.meta["val"].shape, strict=True)  # type: ignore[union-attr]
        if less := [place for place, (wanted, held) in enumerate(pairs) if str(wanted) != str(held)]:
            zeros, ones = [0] * len(less), [1] * len(less)
            sizes = [index.ty.shape.values[place] for place in less]
            source = relax.op.strided_slice(source, less, zeros, sizes, ones, assume_inbound=True)
            source = importer.block_builder.emit(source)
        return importer.block_builder.emit(relax.op.scatter_elements(x, index, source, dim, reduction))

    return row


ROWS: dict[str, Row] = {
    **TYPED,
    "addmm.default": addmm,
    **dict.fromkeys(("mm.default", "bmm.default", "matmul.default"), matmul),
    "embedding.default": embedding,
    "index_select.default": index_select,
    "slice.Tensor": part,
    "select.int": select,
    "full.default": full,
    **dict.fromkeys(("max.default", "amax.default"), extreme(relax.op.max, -math.inf)),
    **dict.fromkeys(("min.default", "amin.default"), extreme(relax.op.min, math.inf)),
    "isnan.default": isnan,
    "logical_not.default": logical_not,
    "scatter.src": scatter("update"),
    "scatter_add.default": scatter("add"),
}
