"""Activations that are written out -> one operator.

Given:  %s = aten.sigmoid(%x);  %y = aten.mul(%x, %s)
Result: %y = aten.silu(%x)

and x * hardsigmoid(x), x * relu6(x + 3) / 6 -> hardswish(x), wherever the sixth is taken. The last node becomes the
operator, so that its name and its readers stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from hashcompile.core.layers import arguments

aten = torch.ops.aten


def name_activations(graph: fx.GraphModule) -> bool:
    """Rewrite every activation that is written out. True if there was one."""
    modified = False
    for node in graph.graph.nodes:
        if node.op != "call_function":
            continue
        for target, x in ((aten.silu.default, silu_of(node)), (aten.hardswish.default, hard_swish_of(node))):
            if x is not None and same_type(x, node):
                node.target, node.args, node.kwargs = target, (x,), {}
                modified = True
                break
    if modified:
        graph.graph.eliminate_dead_code()
        graph.recompile()
    return modified


def same_type(x: fx.Node, y: fx.Node) -> bool:
    values = [node.meta.get("val") for node in (x, y)]
    return all(isinstance(value, torch.Tensor) and value.dtype == torch.float32 for value in values)


def silu_of(node: fx.Node) -> fx.Node | None:
    """x of x * sigmoid(x)."""
    for x, gate in factors(node):
        if is_call(gate, aten.sigmoid.default) and gate.args[0] is x:
            return x
    return None


def hard_swish_of(node: fx.Node) -> fx.Node | None:
    """x of x * hardsigmoid(x), or of x * relu6(x + 3) / 6."""
    for x, gate in factors(node):
        if is_call(gate, aten.hardsigmoid.default) and gate.args[0] is x:
            return x
        if (six := sixth_of(gate)) is not None and ramp_of(six) is x:
            return x
    product = sixth_of(node)
    if product is not None:
        for x, six in factors(product):
            if ramp_of(six) is x:
                return x
    return None


def ramp_of(node: fx.Node) -> fx.Node | None:
    """x of min(max(x + 3, 0), 6)."""
    if is_call(node, aten.relu6.default):
        bounds: tuple[Any, ...] = (0, 6)
    elif is_call(node, aten.hardtanh.default):
        given = arguments(node)
        bounds = (given["min_val"], given["max_val"])
    elif is_call(node, aten.clamp.default):
        given = arguments(node)
        bounds = (given["min"], given["max"])
    else:
        return None
    shifted: Any = node.args[0]
    if bounds != (0, 6) or not is_call(shifted, aten.add.Tensor) or shifted.kwargs:
        return None
    x, three = shifted.args[:2]
    return x if isinstance(x, fx.Node) and len(shifted.args) == 2 and three == 3 else None


def sixth_of(node: fx.Node) -> fx.Node | None:
    """v of v / 6."""
    if not is_call(node, aten.div.Tensor) and not is_call(node, aten.mul.Tensor):
        return None
    if len(node.args) != 2 or node.kwargs:
        return None
    value, by = node.args
    wanted = 6 if node.target is aten.div.Tensor else 1 / 6
    fits = (
        isinstance(value, fx.Node) and isinstance(by, int | float) and math.isclose(by, wanted, rel_tol=1e-7)
    )
    return value if fits else None  # type: ignore[return-value]


def factors(node: fx.Node) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Both orders of the operands of a product of tensors."""
    if is_call(node, aten.mul.Tensor):
        a, b = node.args[:2]
        if isinstance(a, fx.Node) and isinstance(b, fx.Node):
            yield a, b
            yield b, a


def is_call(node: Any, target: Any) -> bool:
    return isinstance(node, fx.Node) and node.target is target
