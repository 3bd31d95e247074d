"""The ONNX row: decode + consumer as one node, whose body says the same in standard operators.

The body turns the T16 lines into packed rows, cuts the rows' planes into indices, looks the values up and multiplies by
the row scale. All of that is constant, and folded when a stock runtime loads the model; an embedding gathers *packed*
rows first, so that a large table stays packed in memory even there.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from hashcompile.core.layers import Kind, Window
from hashcompile.core.method import CODES, Compute
from hashcompile.core.onnx_op import Attribute, OnnxOp, weight_of_rows, weight_shapes
from hashcompile.core.packing import layout, pack
from hashcompile.passes.codebook.weight import CodebookWeight


def fused(code: CodebookWeight, consumer: fx.Node, kind: Kind, compute: Compute) -> OnnxOp | None:
    """The node that decodes and consumes at once; None where there is no such kernel."""
    attributes = {**common(code), "compute": CODES[compute]}
    rows, columns = code.view.size
    biased = kind is not Kind.EMBEDDING and len(consumer.args) > 2 and consumer.args[2] is not None
    name = overload(code) + ("_bias" if biased else "")
    if kind is Kind.LINEAR:
        return OnnxOp(
            "CodebookLinear",
            name,
            partial(constants, code),
            attributes,
            linear_body(code, biased),
            lambda x: (*x.shape[:-1], rows),
        )
    if kind is Kind.EMBEDDING:
        return OnnxOp(
            "CodebookEmbedding",
            name,
            partial(constants, code),
            common(code),
            embedding_body(code),
            lambda ids: (*ids.shape, columns),
        )
    if kind is Kind.CONV:
        window = Window.of(consumer, code.view.shape)
        dims = len(window.kernel)
        source: Any = consumer.args[0]
        if dims > 2 or source.meta["val"].ndim != dims + 2:
            return None
        return OnnxOp(
            "CodebookConv",
            f"{name}_{dims}d",
            partial(constants, code, channels_last=True),
            attributes | window.geometry(),
            conv_body(code, dims, biased),
            lambda x: (x.shape[0], rows, *(window.out_size(x.shape[d + 2], d) for d in range(dims))),
        )
    return None


def decode(code: CodebookWeight) -> OnnxOp:
    """The dense weight, for a consumer without a fused kernel: packed in the file, dense in memory."""
    body = f"""
CodebookDecode<in_features, group_rows, row_shape, order, weight_shape>(codes, codebook, scale) => (W)
{{
{dense_rows(code)}
{weight_of_rows("rows")}
}}"""
    return OnnxOp(
        "CodebookDecode",
        overload(code),
        partial(constants, code),
        common(code) | weight_shapes(code.view),
        body,
        lambda: code.view.shape,
        activations=0,
    )


def common(code: CodebookWeight) -> dict[str, Attribute]:
    return {"bits": code.bits, "in_features": code.view.size[1], "group_rows": code.group_rows}


def overload(code: CodebookWeight) -> str:
    return f"u{code.bits}" + ("_grouped" if code.group_rows else "")


def constants(code: CodebookWeight, *, channels_last: bool = False) -> dict[str, Tensor]:
    """codes, codebook, scale; `channels_last` orders a convolution's row (*kernel, C), as its kernel reads pixels."""
    indices = code.indices
    if channels_last:
        indices = indices.reshape(code.view.shape).movedim(1, -1).reshape(code.view.size)
    codes = torch.from_numpy(pack(indices.numpy(), code.bits))
    return {"codes": codes, "codebook": code.codebook.detach(), "scale": code.scale.detach()}


def packed_rows() -> str:
    """codes (pairs, blocks, lines, 2, 16, 4) -> packed: (32 * pairs, blocks * lines * 4), a row's bytes together."""
    return """\
    by_row = Transpose<perm = [0, 3, 4, 1, 2, 5]>(codes)
    packed = Flatten<axis = 3>(by_row)"""


def indices(bits: int, source: str) -> str:
    """`source` (M, blocks * lines * 4) -> index: (M, in_features) int32."""
    form = layout(bits)
    text = f"""\
    any = Constant<value_ints = [-1]>()
    four = Constant<value_ints = [4]>()
    axis_1 = Constant<value_ints = [1]>()
    axis_2 = Constant<value_ints = [2]>()
    axis_3 = Constant<value_ints = [3]>()
    zero = Constant<value_ints = [0]>()
    columns_0 = Constant<value_int: int = @in_features>()
    columns = Reshape(columns_0, any)
    blocks_lines = Shape<start = 1, end = 3>(codes)
    line_shape = Concat<axis = 0>(any, blocks_lines, four)
    lines = Reshape({source}, line_shape)"""
    first = 0
    for i, plane in enumerate(form.planes):
        fields = 8 // plane.width
        shifts = ", ".join(str(plane.width * field) for field in range(fields))
        text += f"""
    first_{i} = Constant<value_ints = [{first}]>()
    last_{i} = Constant<value_ints = [{first + plane.lines}]>()
    lines_{i} = Slice(lines, first_{i}, last_{i}, axis_2)
    bytes_{i} = Unsqueeze(lines_{i}, axis_3)
    shifts_{i} = Constant<value = uint8[{fields}, 1] {{{shifts}}}>()
    mask_{i} = Constant<value = uint8 {{{2**plane.width - 1}}}>()
    shifted_{i} = BitShift<direction = "RIGHT">(bytes_{i}, shifts_{i})
    fields_{i} = BitwiseAnd(shifted_{i}, mask_{i})
    plane_{i} = Flatten<axis = 1>(fields_{i})
    place_{i} = Constant<value = uint8 {{{plane.shift}}}>()
    part_{i} = BitShift<direction = "LEFT">(plane_{i}, place_{i})"""
        first += plane.lines
    whole = "part_0"
    for i in range(1, len(form.planes)):
        text += f"\n    whole_{i} = BitwiseOr({whole}, part_{i})"
        whole = f"whole_{i}"
    return f"""{text}
    kept = Slice({whole}, zero, columns, axis_1)
    index = Cast<to = 6>(kept)"""


def values(code: CodebookWeight, row_numbers: str) -> str:
    """index (M, K) -> value: (M, K), from the one table or from the table of each row's group."""
    if not code.group_rows:
        return """\
    table = Reshape(codebook, any)
    value = Gather(table, index)"""
    return f"""\
    table = Reshape(codebook, any)
    group_rows = Constant<value_int: int = @group_rows>()
    group = Div({row_numbers}, group_rows)
    entries = Shape<start = 1>(codebook)
    table_start = Mul(group, entries)
    table_start_32 = Cast<to = 6>(table_start)
    table_start_column = Unsqueeze(table_start_32, axis_1)
    entry = Add(index, table_start_column)
    value = Gather(table, entry)"""


def dense_rows(code: CodebookWeight) -> str:
    """codes, codebook, scale -> rows: (N, K)."""
    return f"""\
{packed_rows()}
    count = Shape(scale)
    zero_start = Constant<value_ints = [0]>()
    axis_0 = Constant<value_ints = [0]>()
    packed_used = Slice(packed, zero_start, count, axis_0)
{indices(code.bits, "packed_used")}
    from = Constant<value_int = 0>()
    step = Constant<value_int = 1>()
    rows_count = Squeeze(count)
    row_number = Range(from, rows_count, step)
{values(code, "row_number")}
    scale_column = Unsqueeze(scale, axis_1)
    rows = Mul(value, scale_column)"""


def linear_body(code: CodebookWeight, biased: bool) -> str:
    return f"""
CodebookLinear<bits, in_features, group_rows, compute>(X, codes, codebook, scale{", bias" if biased else ""}) => (Y)
{{
{dense_rows(code)}
    W = Transpose<perm = [1, 0]>(rows)
    {"product" if biased else "Y"} = MatMul(X, W)
{"    Y = Add(product, bias)" if biased else ""}
}}"""


def conv_body(code: CodebookWeight, dims: int, biased: bool) -> str:
    order = [0, dims + 1, *range(1, dims + 1)]  # (N, *kernel, C) -> (N, C, *kernel)
    return f"""
CodebookConv<bits, in_features, group_rows, compute, kernel_shape, strides, pads, dilations, group>
    (X, codes, codebook, scale{", bias" if biased else ""}) => (Y)
{{
{dense_rows(code)}
    kernel = Constant<value_ints: ints = @kernel_shape>()
    taps_shape = Concat<axis = 0>(count, kernel, any)
    taps = Reshape(rows, taps_shape)
    W = Transpose<perm = {order}>(taps)
    Y = Conv<kernel_shape: ints = @kernel_shape, strides: ints = @strides, pads: ints = @pads,
             dilations: ints = @dilations, group: int = @group>(X, W{", bias" if biased else ""})
}}"""


def embedding_body(code: CodebookWeight) -> str:
    return f"""
CodebookEmbedding<bits, in_features, group_rows>(X, codes, codebook, scale) => (Y)
{{
{packed_rows()}
    flat_shape = Constant<value_ints = [-1]>()
    ids = Reshape(X, flat_shape)
    read = Gather(packed, ids)
{indices(code.bits, "read")}
{values(code, "ids")}
    row_scale = Gather(scale, ids)
    scale_column = Unsqueeze(row_scale, axis_1)
    rows = Mul(value, scale_column)
    ids_shape = Shape(X)
    out_shape = Concat<axis = 0>(ids_shape, columns)
    Y = Reshape(rows, out_shape)
}}"""
