"""A value that is expanded for operators that broadcast anyway -> the value.

Given:  %g = aten.expand(%gate, [b, 8, 6, 6]);  %y = aten.mul(%x: (b, 8, 6, 6), %g)
Result: %y = aten.mul(%x: (b, 8, 6, 6), %gate: (b, 1, 6, 6))

A gate of one channel that is spread over many would be all of them, and a mask would have their number.
"""

from __future__ import annotations

import torch
from torch import fx

aten = torch.ops.aten

EXPANDS = (aten.expand.default, aten.expand_as.default)
BROADCASTS = (
    *(aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.maximum.default),
    *(aten.minimum.default, aten.where.self, aten.masked_fill.Scalar, aten.masked_fill.Tensor),
)


def drop_expands(graph: fx.GraphModule) -> bool:
    """Drop every expansion that changes no result. True if there were any."""
    modified = False
    for node in list(graph.graph.nodes):
        # a number would no longer take part in the choice of a data type
        if (
            node.target in EXPANDS
            and node.args[0].meta["val"].ndim
            and all(meets(user, node) for user in node.users)
        ):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
            modified = True
    if modified:
        graph.recompile()
    return modified


def meets(user: fx.Node, node: fx.Node) -> bool:
    """Has another operand of `user` the size that `node` has?"""
    others = [each for each in user.all_input_nodes if each is not node]
    return user.target in BROADCASTS and any(shape(each) == shape(node) for each in others)


def shape(node: fx.Node) -> tuple[str, ...]:
    return tuple(map(str, getattr(node.meta.get("val"), "shape", ())))
