"""The ONNX row: the full product in standard operators, which know no index."""

from __future__ import annotations

from torch import fx

from hashcompile.core.layers import Kind
from hashcompile.core.method import Compute
from hashcompile.core.onnx_op import OnnxOp, weight_of_rows, weight_shapes
from hashcompile.passes.wide.weight import WideWeight

OPERATOR = "WideLinear"


def fused(code: WideWeight, consumer: fx.Node, kind: Kind, compute: Compute) -> OnnxOp | None:
    """A linear layer; an embedding that shares the weight gets it dense."""
    if kind is not Kind.LINEAR:
        return None
    biased = len(consumer.args) > 2 and consumer.args[2] is not None
    body = f"""
{OPERATOR}<rows, in_features>(X, {", ".join(code.storage())}{", bias" if biased else ""}) => (Y)
{{
    W = Transpose<perm = [1, 0]>(values)
    {"product" if biased else "Y"} = MatMul(X, W)
{"    Y = Add(product, bias)" if biased else ""}
}}"""
    rows, columns = code.view.size
    return OnnxOp(
        OPERATOR,
        "bias" if biased else "plain",
        code.storage,
        {"rows": rows, "in_features": columns},
        body,
        lambda x: (*x.shape[:-1], rows),
    )


def decode(code: WideWeight) -> OnnxOp:
    """The dense weight as it is."""
    body = f"""
WideDecode<row_shape, order, weight_shape>(values) => (W)
{{
{weight_of_rows("values")}
}}"""
    return OnnxOp(
        "WideDecode",
        "plain",
        lambda: {"values": code.rows().detach()},
        weight_shapes(code.view),
        body,
        lambda: code.view.shape,
        activations=0,
    )
