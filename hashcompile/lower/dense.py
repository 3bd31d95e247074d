"""Layers whose weights are dense -> our operators, for a runtime that has no fast kernels of its own.

Given:  %y = aten.conv2d(%x, %w, %b);  %z = aten.relu(%y)
Result: %z = call_module[conv2d_op](%x, %codes, %codebook, %scale, %b)    # CodebookConv of 32 bits

Codes of 32 bits are the fp32 values themselves, in the order in which kernels read codes of any width; their codebook
is empty. No ONNX file holds such nodes, so they have no body.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from hashcompile.core.layers import CONSUMERS, Kind, Window, attribute, consumes, kind_of
from hashcompile.core.method import CODES
from hashcompile.core.onnx_op import Attribute, OnnxOp
from hashcompile.lower.match import dtype_of, shape_of

BITS = 32
PAIR = 32  # rows that kernels take together


def dense_layers(graph: fx.GraphModule) -> Iterator[tuple[str, fx.Node, OnnxOp]]:
    """(parameter, layer, operator) of every layer that kernels of ours compute from fp32 weights."""
    for node in list(graph.graph.nodes):
        kind = kind_of(node)
        if kind not in (Kind.LINEAR, Kind.CONV):
            continue
        weight = node.args[CONSUMERS[node.target][1]]
        if (
            not is_constant(graph, weight)
            or not consumes(node, weight)
            or dtype_of(node) is not torch.float32
        ):
            continue
        bias = node.args[2] if len(node.args) > 2 else None
        if (bias is None or is_constant(graph, bias)) and (op := operator(graph, node, kind, weight)):
            yield str(weight.target), node, op


def is_constant(graph: fx.GraphModule, node: Any) -> bool:
    held = attribute(graph, str(node.target)) if isinstance(node, fx.Node) and node.op == "get_attr" else None
    return isinstance(held, Tensor) and held.dtype is torch.float32


def operator(graph: fx.GraphModule, layer: fx.Node, kind: Kind, weight: fx.Node) -> OnnxOp | None:
    values = attribute(graph, str(weight.target)).detach()
    rows, columns = values.shape[0], values[0].numel() if len(values) else 0
    attributes: dict[str, Attribute] = {
        "bits": BITS,
        "in_features": columns,
        "group_rows": 0,
        "compute": CODES["float"],
    }
    if kind is Kind.LINEAR:
        held = partial(constants, values)
        return OnnxOp("CodebookLinear", "dense", held, attributes, "", lambda x: (*x.shape[:-1], rows))
    window = Window.of(layer, tuple(values.shape))
    dims = len(window.kernel)
    if dims > 2 or len(shape_of(layer.args[0])) != dims + 2:
        return None
    return OnnxOp(
        "CodebookConv",
        f"dense_{dims}d",
        partial(constants, values.movedim(1, -1).flatten(1)),
        attributes | window.geometry(),
        "",
        lambda x: (x.shape[0], rows, *(window.out_size(x.shape[d + 2], d) for d in range(dims))),
    )


def constants(values: Tensor) -> Mapping[str, Tensor]:
    """`values` (N, K) -> codes (pairs of tiles, K, 1, 2, 16, 4) uint8, no codebook, scales of one."""
    rows, columns = values.shape
    pairs = -(-rows // PAIR)
    padded = nn.functional.pad(values, (0, 0, 0, pairs * PAIR - rows)).reshape(pairs, PAIR, columns)
    codes = padded.transpose(1, 2).contiguous().view(torch.uint8).reshape(pairs, columns, 1, 2, PAIR // 2, 4)
    return {"codes": codes, "codebook": torch.zeros(0, 0), "scale": torch.ones(rows)}
