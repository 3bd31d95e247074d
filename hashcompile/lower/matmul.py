"""Products of two activations that are no attention -> our operator, for a runtime whose own loops are slow at them.

Given:  %t = aten.transpose(%b, 1, 2);  %y = aten.matmul(%a, %t)
Result: %y = call_module[matmul_op](%a, %b)             # MatMul[transposed=1]

Rows that are known to be few are left alone: kernels take 32 at a time. No ONNX file holds these nodes, so they have no
body.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import fx

from hashcompile.core.onnx_op import OnnxOp
from hashcompile.lower.match import dtype_of, shape_of, source, swaps
from hashcompile.lower.symbolic import SymbolicOp, call_op

aten = torch.ops.aten
OPERATOR = "MatMul"
PRODUCTS = (aten.matmul.default, aten.bmm.default, aten.mm.default)
FEW = 8  # rows


def fuse_products(graph: fx.GraphModule) -> Iterable[OnnxOp]:
    """Replace every one; the operators that were put in."""
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or node.target not in PRODUCTS:
            continue
        x, w = node.args
        if not fits(node, x, w):
            continue
        behind, transposed = source(w), swaps(source(w), -2, -1)
        op = OnnxOp(
            OPERATOR, "", dict, {"transposed": int(transposed)}, "", partial(shape, transposed), activations=2
        )
        with graph.graph.inserting_before(node):
            inputs = (x, behind.args[0] if transposed else w)
            call = call_op(graph, f"{node.name}_op", SymbolicOp(op, torch.float32), inputs)
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        graph.graph.erase_node(node)
        yield op
    graph.graph.eliminate_dead_code()


def fits(node: fx.Node, x: Any, w: Any) -> bool:
    """Floats, as many products of one size as there are entries in the dims in front, and rows enough?"""
    if any(dtype_of(each) is not torch.float32 for each in (node, x, w)):
        return False
    first, second = shape_of(x), shape_of(w)
    same = len(first) == len(second) >= 2 and first[:-2] == second[:-2]
    return same and not (first[-2].isdigit() and int(first[-2]) < FEW)


def shape(transposed: bool, x: torch.Tensor, w: torch.Tensor) -> tuple[Any, ...]:
    return (*x.shape[:-1], w.shape[-2 if transposed else -1])
