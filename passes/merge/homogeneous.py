"""Is a group's way from the layers that make it to those that read it positively homogeneous: f(c x) = c f(x), c > 0?

Then units that differ by a factor are one unit read with that factor, whatever the data.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from hashcompile.core.layers import CONSUMERS
from hashcompile.passes.merge.made import Made, reads

aten = torch.ops.aten

KEEPS_FACTORS = {
    aten.relu,
    aten.relu_,
    aten.leaky_relu,
    aten.leaky_relu_,
    aten.max_pool1d,
    aten.max_pool2d,
    aten.max_pool3d,
    aten.avg_pool1d,
    aten.avg_pool2d,
    aten.avg_pool3d,
    aten.adaptive_avg_pool1d,
    aten.adaptive_avg_pool2d,
    aten.adaptive_avg_pool3d,
    aten.adaptive_max_pool2d,
    aten.upsample_nearest2d,
    aten.mean,
    aten.amax,
    aten.view,
    aten.reshape,
    aten.flatten,
    aten.unflatten,
    aten.permute,
    aten.transpose,
    aten.contiguous,
    aten.clone,
    aten.squeeze,
    aten.unsqueeze,
    aten.slice,
    aten.pad,
    aten.constant_pad_nd,
    aten.cat,
    aten.dropout,
    aten.dropout_,
}
ADDS = {aten.add, aten.add_, aten.sub}  # of two activations; a constant beside one would not grow with it


def homogeneous(graph: fx.GraphModule, ways: Sequence[Made]) -> bool:
    """Does everything between the layers `ways` and the next ones keep positive factors?"""
    own = {name for way in ways for name in way.names()}
    starts = [node for node in graph.graph.nodes if any(reads(node, way.axis.parameter) for way in ways)]
    if any(
        each.op == "get_attr" and each.target not in own for node in starts for each in node.all_input_nodes
    ):
        return False  # a bias that is not part of the units
    todo, seen = [user for node in starts for user in node.users], set()
    while todo:
        node = todo.pop()
        if node in seen or node.target in CONSUMERS:
            continue
        seen.add(node)
        packet = getattr(node.target, "overloadpacket", None)
        values = [each for each in node.all_input_nodes if each.op != "placeholder"]
        if packet is aten.batch_norm:
            fine = all(each.target in own for each in values if each.op == "get_attr")
        elif packet in ADDS:
            fine = len(node.all_input_nodes) == 2 and all(each.op == "call_function" for each in values)
        else:
            fine = packet in KEEPS_FACTORS and all(each.op == "call_function" for each in values)
        if not fine:
            return False
        todo += node.users
    return bool(starts)
