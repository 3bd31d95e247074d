"""A group norm or an instance norm -> a layer norm of its groups, for a runtime that has no kernel for groups.

Given:  %y = aten.group_norm(%x (B, C, H, W), G, %w, %b, epsilon)
Result: %g = call_module[norm](%x as (B, G, C / G * H * W));  %y = %g as (B, C, H, W) * %w + %b

An instance norm is a group norm with a group for each channel. What has other sizes unknown than that of the batch
stays as it is. No ONNX file holds these nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from math import prod
from typing import Any

import torch
from torch import fx

from hashcompile.core.graph import call
from hashcompile.core.layers import arguments
from hashcompile.core.onnx_op import OnnxOp
from hashcompile.lower.match import dtype_of, shape_of
from hashcompile.lower.norm_op import Norm
from hashcompile.lower.symbolic import SymbolicOp, call_op

aten = torch.ops.aten


def group_norms(graph: fx.GraphModule, replaced: dict[fx.Node, fx.Node]) -> Iterable[OnnxOp]:
    """Replace every one; the operators that were put in. `replaced` is told what stands for which node."""
    for node in list(graph.graph.nodes):
        groups = groups_of(node)
        x: Any = node.args[0] if groups else None
        if not groups or dtype_of(x) is not torch.float32 or not all(map(str.isdigit, shape_of(x)[1:])):
            continue
        op = Norm(True, float(arguments(node)["eps"]), bias=False, residual=False).op()
        with graph.graph.inserting_before(node):
            replaced[node] = normed(graph, node, groups, op)
        replaced[node].meta = dict(node.meta)
        node.replace_all_uses_with(replaced[node])
        graph.graph.erase_node(node)
        yield op


def groups_of(node: fx.Node) -> int | None:
    """The number of groups that have statistics of their own; None for any other node."""
    if node.target is aten.group_norm.default:
        return int(arguments(node)["num_groups"])
    if node.target is aten.instance_norm.default and arguments(node)["use_input_stats"]:
        channels = shape_of(node)[1]
        return int(channels) if channels.isdigit() else None
    return None


def normed(graph: fx.GraphModule, node: fx.Node, groups: int, op: OnnxOp) -> fx.Node:
    given, emit = arguments(node), partial(call, graph.graph)
    sizes = [int(size) for size in shape_of(node)[1:]]
    x = emit(aten.flatten.using_ints, given["input"], 1)
    x = emit(aten.unflatten.int, x, 1, [groups, prod(sizes) // groups])
    y = call_op(graph, f"{node.name}_op", SymbolicOp(op, torch.float32), (x,))
    y.meta = dict(x.meta)
    y = emit(aten.unflatten.int, emit(aten.flatten.using_ints, y, 1), 1, sizes)
    for target, affine in ((aten.mul.Tensor, given["weight"]), (aten.add.Tensor, given["bias"])):
        if affine is not None:
            y = emit(target, y, emit(aten.unflatten.int, affine, 0, [-1, *(1 for _ in sizes[1:])]))
    return y
