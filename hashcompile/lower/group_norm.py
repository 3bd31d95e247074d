"""A group norm or an instance norm -> a layer norm of its groups, for a runtime that has a kernel for that one alone.

Given:  %y = aten.group_norm(%x (B, C, H, W), G, %w, %b, epsilon)
Result: %g = aten.layer_norm(%x as (B, G, C / G * H * W), epsilon);  %y = %g as (B, C, H, W) * %w + %b

An instance norm is a group norm with a group for each channel. Images whose size is not known stay as they are.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import torch
from torch import fx

from hashcompile.core.graph import call
from hashcompile.core.layers import arguments
from hashcompile.lower.match import dtype_of, shape_of

aten = torch.ops.aten


def layer_norms(graph: fx.GraphModule) -> None:
    """Rewrite every one that has known sizes, but for the batch."""
    for node in list(graph.graph.nodes):
        groups = groups_of(node)
        x: Any = node.args[0] if groups else None
        if groups and dtype_of(x) is torch.float32 and all(size.isdigit() for size in shape_of(x)[1:]):
            rewrite(graph, node, groups)


def groups_of(node: fx.Node) -> int | None:
    """The number of groups that have statistics of their own; None for any other node."""
    if node.target is aten.group_norm.default:
        return int(arguments(node)["num_groups"])
    if (
        node.target is aten.instance_norm.default
        and arguments(node)["use_input_stats"]
        and len(shape_of(node)) > 2
    ):
        channels = shape_of(node)[1]
        return int(channels) if channels.isdigit() else None
    return None


def rewrite(graph: fx.GraphModule, node: fx.Node, groups: int) -> None:
    given = arguments(node)
    x, sizes = given["input"], [int(size) for size in shape_of(node)[1:]]
    emit = partial(call, graph.graph)
    with graph.graph.inserting_before(node):
        y = emit(aten.unflatten.int, emit(aten.flatten.using_ints, x, 1), 1, [groups, prod(sizes) // groups])
        y = emit(aten.layer_norm.default, y, [prod(sizes) // groups], None, None, given["eps"])
        y = emit(aten.unflatten.int, emit(aten.flatten.using_ints, y, 1), 1, sizes)
        for target, affine in ((aten.mul.Tensor, given["weight"]), (aten.add.Tensor, given["bias"])):
            if affine is not None:
                y = emit(target, y, emit(aten.unflatten.int, affine, 0, [-1, *(1 for _ in sizes[1:])]))
    y.meta = dict(node.meta)
    node.replace_all_uses_with(y)
    graph.graph.erase_node(node)
