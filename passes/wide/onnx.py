"""The ONNX row: the full product in standard operators, which know no index; rows of codes are decoded first."""

from __future__ import annotations

from torch import fx

from hashcompile.core.layers import Kind
from hashcompile.core.method import Compute
from hashcompile.core.onnx_op import Attribute, OnnxOp, weight_of_rows, weight_shapes
from hashcompile.passes.wide.weight import WideWeight


def fused(code: WideWeight, consumer: fx.Node, kind: Kind, compute: Compute) -> OnnxOp | None:
    """A linear layer; an embedding that shares the weight gets it dense."""
    if kind is not Kind.LINEAR:
        return None
    biased = len(consumer.args) > 2 and consumer.args[2] is not None
    codes = code.codes
    operator = "WideCodebookLinear" if codes else "WideLinear"
    attributes = common(code)
    body = f"""
{operator}<{", ".join(attributes)}>(X, {", ".join(code.storage())}{", bias" if biased else ""}) => (Y)
{{
{decoded(codes.bits) if codes else ""}
    W = Transpose<perm = [1, 0]>(values)
    {"product" if biased else "Y"} = MatMul(X, W)
{"    Y = Add(product, bias)" if biased else ""}
}}"""
    return OnnxOp(
        operator,
        (f"u{codes.bits}_" if codes else "") + ("bias" if biased else "plain"),
        code.storage,
        attributes,
        body,
        lambda x: (*x.shape[:-1], code.view.size[0]),
    )


def common(code: WideWeight) -> dict[str, Attribute]:
    rows, columns = code.view.size
    sizes: dict[str, Attribute] = {"rows": rows, "in_features": columns}
    return {"code_bits": code.codes.bits, **sizes} if code.codes else sizes


def decoded(bits: int) -> str:
    """codes (N, ceil(K * bits / 8)), codebook, scale -> values: (N, K)."""
    return f"""\
    any = Constant<value_ints = [-1]>()
    zero = Constant<value_ints = [0]>()
    axis_1 = Constant<value_ints = [1]>()
    axis_2 = Constant<value_ints = [2]>()
    columns_0 = Constant<value_int: int = @in_features>()
    columns = Reshape(columns_0, any)
    bytes = Unsqueeze(codes, axis_2)
    shifts = Constant<value = uint8[{8 // bits}] {{{", ".join(str(bits * field) for field in range(8 // bits))}}}>()
    mask = Constant<value = uint8 {{{2**bits - 1}}}>()
    shifted = BitShift<direction = "RIGHT">(bytes, shifts)
    fields = BitwiseAnd(shifted, mask)
    padded = Flatten<axis = 1>(fields)
    kept = Slice(padded, zero, columns, axis_1)
    index = Cast<to = 6>(kept)
    value = Gather(codebook, index)
    scale_column = Unsqueeze(scale, axis_1)
    values = Mul(value, scale_column)"""


def decode(code: WideWeight) -> OnnxOp:
    """The dense weight: as it is, or decoded."""
    codes = code.codes
    attributes = (common(code) if codes else {}) | weight_shapes(code.view)
    body = f"""
WideDecode<{", ".join(attributes)}>({"codes, codebook, scale" if codes else "values"}) => (W)
{{
{decoded(codes.bits) if codes else ""}
{weight_of_rows("values")}
}}"""
    return OnnxOp(
        "WideDecode",
        f"u{codes.bits}" if codes else "plain",
        codes.storage if codes else lambda: {"values": code.rows().detach()},
        attributes,
        body,
        lambda: code.view.shape,
        activations=0,
    )
