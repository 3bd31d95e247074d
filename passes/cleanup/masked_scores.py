"""Scores that are overwritten where a softmax should see nothing -> a mask that is added to them.

Given:  %s = aten.masked_fill(%scores, %hidden, -inf);  %w = aten.softmax(%s, -1)
Result: %m = aten.where(%hidden, -inf, 0);  %s = aten.add(%scores, %m);  %w = aten.softmax(%s, -1)

and where(%seen, %scores, -inf). What fuses an attention then finds masks in one spelling, and %m is made once for all
layers that read the same %hidden. So it is for every number that no score survives next to: a weight is then the
same zero, and where nothing is seen all weights are the same. The node keeps its name and its readers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from hashcompile.core.layers import COPIES, attribute

aten = torch.ops.aten

CONSTANTS = (*COPIES, aten.lift_fresh_copy.default, aten.detach_.default)  # what a number passes on its way
HIDES = -1e9  # float32 holds multiples of 64 there: the score is rounded away


def add_masks(graph: fx.GraphModule) -> bool:
    """Rewrite all scores that are overwritten in front of a softmax. True if there were any."""
    modified = False
    made: dict[tuple[fx.Node, bool, float], fx.Node] = {}
    for node in list(graph.graph.nodes):
        found = overwritten(node)
        if found is None or not feeds_softmax(node):
            continue
        scores, which, hidden, value = found
        key = (which, hidden, value)
        if key not in made:
            made[key] = mask(graph.graph, which, (value, 0.0) if hidden else (0.0, value))
        node.target, node.args, node.kwargs = aten.add.Tensor, (scores, made[key]), {}
        modified = True
    if modified:
        graph.graph.eliminate_dead_code()
        graph.recompile()
    return modified


def mask(graph: fx.Graph, which: fx.Node, choices: tuple[float, float]) -> fx.Node:
    with graph.inserting_after(which):
        node = graph.call_function(aten.where.Scalar, (which, *choices))
    node.meta = {"val": which.meta["val"].new_empty(which.meta["val"].shape, dtype=torch.float32)}
    return node


def overwritten(node: fx.Node) -> tuple[fx.Node, fx.Node, bool, float] | None:
    """(scores, bool tensor, whether it is true where they are hidden, what they are then)."""
    if node.target in (aten.masked_fill.Scalar, aten.masked_fill.Tensor):
        scores, which, value = node.args
        hidden = True
    elif node.target in (aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf):
        which, scores, value = node.args
        if hidden := number(scores) is not None:
            scores, value = value, scores
    else:
        return None
    least = number(value)
    if (
        least is None
        or not (least <= HIDES)
        or not isinstance(scores, fx.Node)
        or not isinstance(which, fx.Node)
    ):
        return None
    shapes = [tuple(map(str, each.meta["val"].shape)) for each in (scores, node)]
    floats = all(each.meta["val"].dtype == torch.float32 for each in (scores, node))
    if not floats or shapes[0] != shapes[1] or which.meta["val"].dtype != torch.bool:
        return None
    return scores, which, hidden, least


def number(value: Any) -> float | None:
    """The number in an argument, or in a tensor of no dims: made of a number, or held by the model."""
    while isinstance(value, fx.Node) and value.target in CONSTANTS:
        value = value.args[0]
    if isinstance(value, fx.Node) and value.target in (aten.full.default, aten.scalar_tensor.default):
        shape, filled = (value.args[0], value.args[1]) if len(value.args) > 1 else ([], value.args[0])
        value = filled if not shape else None
    elif isinstance(value, fx.Node) and value.op == "get_attr":
        held: Any = attribute(value.graph.owning_module, str(value.target))  # type: ignore[arg-type]
        value = held.item() if held.ndim == 0 and not isinstance(held, torch.nn.Parameter) else None
    return float(value) if isinstance(value, int | float) else None


def feeds_softmax(node: fx.Node) -> bool:
    """Is a softmax along the last dim all that reads it?"""
    users = list(node.users)
    last = (-1, node.meta["val"].ndim - 1)
    return len(users) == 1 and users[0].target is aten.softmax.int and users[0].args[1] in last
