"""op_(x) -> op(x): a value that nobody reads again needs no overwriting.

Given:  %x = aten.conv2d(...);  %y = aten.relu_(%x)
Result: %x = aten.conv2d(...);  %y = aten.relu(%x)

A node is then what it computes, whoever reads it when: what fusion and measuring rely on. An operator stays in place
where its input may share memory with another value, or is read again.
"""

from __future__ import annotations

import torch
from torch import fx

from hashcompile.core.layers import CONSUMERS

aten = torch.ops.aten

NAMES = """batch_norm relu relu6 hardtanh clamp clamp_min clamp_max gelu silu hardswish hardsigmoid sigmoid tanh elu
    leaky_relu mish add sub mul div max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d mean cat layer_norm group_norm matmul"""
OWNS_ITS_OUTPUT = frozenset(
    getattr(aten, name) for name in NAMES.split()
)  # packets: never a view of an input


def functional(graph: fx.GraphModule) -> bool:
    """Replace every in-place operator whose effect nobody can see. True if any was."""
    order = {node: position for position, node in enumerate(graph.graph.nodes)}
    modified = False
    for node in graph.graph.nodes:
        pure = counterpart(node)
        if pure is not None and (idle(node) or unseen(node, order)):
            node.target = pure
            modified = True
    if modified:
        graph.recompile()
    return modified


def counterpart(node: fx.Node) -> torch._ops.OpOverload | None:
    """`aten.relu.default` for a node of `aten.relu_.default`; None for all other nodes."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return None
    schema = node.target._schema
    name = schema.name.partition("::")[2]
    if not schema.is_mutable or not name.endswith("_") or not node.args:
        return None
    packet = getattr(aten, name[:-1], None)
    return getattr(packet, schema.overload_name or "default", None)


def idle(node: fx.Node) -> bool:
    """Dropout outside of training writes nothing."""
    return node.target in (aten.dropout_.default, aten.feature_dropout_.default) and not node.args[2]


def unseen(node: fx.Node, order: dict[fx.Node, int]) -> bool:
    """Does `node` write to memory that no other value shares, and that nobody reads after it?"""
    written = node.args[0]
    if not isinstance(written, fx.Node) or not owns(written):
        return False
    readers = [user for user in written.users if user is not node]
    return all(order[user] < order[node] and owns(user) for user in readers)


def owns(node: fx.Node) -> bool:
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and (
        target in CONSUMERS or target.overloadpacket in OWNS_ITS_OUTPUT
    )
