"""A softmax, and an activation that no layer took in, -> our operators, for a runtime whose own loops are slow at them.

Given:  %y = aten.softmax(%x, -1);  %z = aten.gelu(%y)
Result: %y = call_module[softmax_op](%x);  %z = call_module[gelu_op](%y)

What other runtimes compute fast enough stays: a softmax over another dimension, whose loops need no order of sums, and
activations without an exponential in them. No ONNX file holds these nodes, so they have no body.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from hashcompile.core.layers import arguments
from hashcompile.core.onnx_op import OnnxOp
from hashcompile.lower.match import dtype_of, shape_of
from hashcompile.lower.pointwise import Activation, activation_of
from hashcompile.lower.symbolic import SymbolicOp, call_op

aten = torch.ops.aten
ACTIVATION, SOFTMAX = "Activation", "Softmax"
KEEP_ORDER = (ACTIVATION,)  # operators that write an image as they read it, whatever the order of its dims
SLOW = (Activation.GELU, Activation.GELU_TANH, Activation.SILU)
LOG = {  # softmaxes, and whether the logarithm is wanted
    aten.softmax.int: 0,
    aten._softmax.default: 0,
    aten.log_softmax.int: 1,
    aten._log_softmax.default: 1,
}


def fuse_exponentials(graph: fx.GraphModule) -> Iterable[OnnxOp]:
    """Replace every one; the operators that were put in."""
    for node in list(graph.graph.nodes):
        op = softmax(node) or activation(node)
        if op is None:
            continue
        with graph.graph.inserting_before(node):
            call = call_op(graph, f"{node.name}_op", SymbolicOp(op, torch.float32), (node.args[0],))
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        graph.graph.erase_node(node)
        yield op


def softmax(node: fx.Node) -> OnnxOp | None:
    """Of floats, over the last dimension."""
    if (
        node.target not in LOG
        or dtype_of(node) is not torch.float32
        or dtype_of(node.args[0]) is not torch.float32
    ):
        return None
    rank, dim = len(shape_of(node)), arguments(node)["dim"]
    if not rank or dim not in (-1, rank - 1):
        return None
    return OnnxOp(SOFTMAX, "", dict, {"log": LOG[node.target]}, "", same_shape)


def activation(node: fx.Node) -> OnnxOp | None:
    which, _, _ = activation_of(node) or (Activation.NONE, 0, 0)
    if which not in SLOW:
        return None
    return OnnxOp(ACTIVATION, "", dict, {"activation": which.name.lower()}, "", same_shape)


def same_shape(x: torch.Tensor) -> tuple[Any, ...]:
    return tuple(x.shape)
