"""Rows that TVM's importer lacks, or gets wrong, in its own terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from tvm import relax

from hashcompile.core.layers import arguments
from hashcompile.lower.tvm_types import TYPED, Row, typed


def embedding(node: fx.Node, importer: Any) -> Any:
    """Rows of a dense table: NaN for an id that has none, where TVM by itself would read what lies there."""
    table, ids = importer.env[node.args[0]], importer.env[node.args[1]]
    emit = importer.block_builder.emit
    rows = emit(relax.op.take(table, emit(relax.op.reshape(ids, [-1])), axis=0, mode="nan"))
    return emit(relax.op.reshape(rows, [*ids.ty.shape.values, table.ty.shape.values[-1]]))


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
    x, dim, index = importer.env[node.args[0]], node.args[1], node.args[2]
    place = x.ty.shape.values[dim] + index if isinstance(index, int) and index < 0 else index
    return importer.block_builder.emit(relax.op.take(x, relax.prim_value(place), dim))


def extreme(reduce: Callable[..., Any]) -> Row:
    """The row of amax or amin; of bools, which have no bounds, as small numbers."""

    def row(node: fx.Node, importer: Any) -> Any:
        given, emit = arguments(node), importer.block_builder.emit
        bools = node.meta["val"].dtype == torch.bool
        x = typed(given["self"], torch.int8, importer) if bools else importer.env[given["self"]]
        made = emit(reduce(x, list(given["dim"]) or None, given["keepdim"]))
        return emit(relax.op.astype(made, "bool")) if bools else made

    return row


def matmul(node: fx.Node, importer: Any) -> Any:
    x, w = (importer.env[factor] for factor in node.args)
    return product(x, w, importer)


def product(x: Any, w: Any, importer: Any) -> Any:
    """Of the type of its factors, where the importer's own is always in float32."""
    return importer.block_builder.emit(relax.op.matmul(x, w))


def addmm(node: fx.Node, importer: Any) -> Any:
    """`alpha` and `beta` are 1 (see `tvm_decompositions`)."""
    bias, x, w = (importer.env[operand] for operand in node.args)
    return importer.block_builder.emit(relax.op.add(bias, product(x, w, importer)))


def scatter_add(node: fx.Node, importer: Any) -> Any:
    x, dim, index, source = node.args
    x, index, source = (importer.env[each] for each in (x, index, source))
    return importer.block_builder.emit(relax.op.scatter_elements(x, index, source, dim, "add"))


ROWS: dict[str, Row] = {
    **TYPED,
    "addmm.default": addmm,
    **dict.fromkeys(("mm.default", "bmm.default", "matmul.default"), matmul),
    "embedding.default": embedding,
    "slice.Tensor": part,
    "select.int": select,
    "amax.default": extreme(relax.op.max),
    "amin.default": extreme(relax.op.min),
    "scatter_add.default": scatter_add,
}
