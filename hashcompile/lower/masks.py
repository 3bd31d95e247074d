"""Masks in the shape that they have before they are expanded.

Given:  %m = expand(and(all_true (1, 1, S, 1), %keys (B, 1, 1, S)), [B, 1, S, S])
Result: %keys

An attention broadcasts its mask by itself: a mask of the keys alone is read S times instead of made S times as large.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from hashcompile.lower.match import CASTS, dtype_of, shape_of, source

aten = torch.ops.aten

ELEMENTWISE = (
    aten.to.dtype,
    aten.to.device,
    aten.to.dtype_layout,
    aten._to_copy.default,
    aten.logical_not.default,
    aten.bitwise_not.default,
    aten.where.self,
    aten.where.ScalarOther,
    aten.where.ScalarSelf,
    aten.where.Scalar,
    aten.masked_fill.Scalar,
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.rsub.Scalar,
    aten.mul.Tensor,
    aten.eq.Scalar,
    aten.ne.Scalar,
    aten.gt.Scalar,
    aten.__and__.Tensor,
    aten.logical_and.default,
    aten.bitwise_and.Tensor,
    aten.__or__.Tensor,
)
CONJUNCTIONS = (aten.__and__.Tensor, aten.logical_and.default, aten.bitwise_and.Tensor)
RESHAPES = (
    aten.unsqueeze.default,
    aten.expand.default,
    aten.view.default,
    aten.slice.Tensor,
    aten.reshape.default,
)


def unexpanded(mask: fx.Node) -> fx.Node:
    """A node that broadcasts to the same values as `mask`, of the smallest shape found; new nodes stand beside it."""
    return _unexpanded(mask, {})


def _unexpanded(node: fx.Node, done: dict[fx.Node, fx.Node]) -> fx.Node:
    if node not in done:
        done[node] = _reduced(node, done)
    return done[node]


def _reduced(node: fx.Node, done: dict[fx.Node, fx.Node]) -> fx.Node:
    if node.op != "call_function":
        return node
    if node.target is aten.expand.default and len(shape_of(node.args[0])) == len(shape_of(node)):
        return _unexpanded(node.args[0], done)  # type: ignore[arg-type]
    if node.target in CONJUNCTIONS:
        a, b = node.args[:2]
        for truth, other in ((a, b), (b, a)):
            same = dtype_of(other) is torch.bool and len(shape_of(other)) == len(shape_of(node))
            if isinstance(other, fx.Node) and same and always_true(truth):
                return _unexpanded(other, done)
    if node.target not in ELEMENTWISE:
        return node
    smaller = {argument: _unexpanded(argument, done) for argument in node.all_input_nodes}
    if all(new is old for old, new in smaller.items()):
        return node
    with node.graph.inserting_after(node):
        copy = node.graph.node_copy(node, lambda argument: smaller.get(argument, argument))
    value = node.meta["val"]
    copy.meta = dict(node.meta) | {"val": value.new_empty(broadcast(smaller.values(), value.ndim))}
    return copy


def broadcast(nodes: Any, rank: int) -> tuple[Any, ...]:
    sizes: list[Any] = [1] * rank
    for node in nodes:
        shape = node.meta["val"].shape
        for i, size in enumerate(shape):
            at = rank - len(shape) + i
            if str(size) != "1":
                sizes[at] = size
    return tuple(sizes)


def always_true(node: Any) -> bool:
    """Is it provable that every element of this bool tensor is True?"""
    node = source(node)
    if not isinstance(node, fx.Node) or node.op != "call_function":
        return False
    target, args = node.target, node.args
    if target in (aten.new_ones.default, aten.ones.default, aten.ones_like.default):
        return True
    if target is aten.full.default:
        return bool(args[1])
    if target in (*RESHAPES, *CASTS):
        return dtype_of(args[0]) is torch.bool and always_true(args[0])
    if target in CONJUNCTIONS:
        return always_true(args[0]) and always_true(args[1])
    return target is aten.ge.Scalar and isinstance(args[1], int) and args[1] <= 0 and counts_up(args[0])


def counts_up(node: Any) -> bool:
    """Is it provable that no element of this integer tensor is negative?"""
    node = source(node)
    if not isinstance(node, fx.Node) or node.op != "call_function":
        return False
    if node.target is aten.arange.default:
        return True
    if node.target in RESHAPES:
        return counts_up(node.args[0])
    rises = node.target is aten.add.Tensor and isinstance(node.args[1], int) and node.args[1] >= 0
    return bool(rises and node.kwargs.get("alpha", 1) == 1 and counts_up(node.args[0]))
