"""A layer norm or an RMS norm, and the sum in front of it -> one operator.

Given:  %s = aten.add(%x, %r);  %y = aten.layer_norm(%s, [N], %w, %b, epsilon)
Result: %y = call_module[norm](%x, %w, %b, %r)          # com.hashcompile::Norm

RMS norms are recognised as aten.rms_norm, and written out: %s * rsqrt(mean(%s^2) + epsilon) * %w. A sum that others
read too stays in front. Norms over more than the last dimension stay as they are.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from hashcompile.core.layers import arguments, unused
from hashcompile.core.onnx_op import OnnxOp
from hashcompile.lower.match import dtype_of, readers, shape_of, source
from hashcompile.lower.norm_op import Norm
from hashcompile.lower.pointwise import addends_of
from hashcompile.lower.symbolic import SymbolicOp, call_op

aten = torch.ops.aten


@dataclass(frozen=True)
class Found:
    """A norm in the graph."""

    root: fx.Node
    x: fx.Node
    readers: tuple[fx.Node, ...]  # of x, as far as they belong to the norm
    weight: fx.Node | None
    bias: fx.Node | None
    epsilon: float
    centered: bool


def fuse_norms(
    graph: fx.GraphModule, taken: Container[fx.Node], replaced: dict[fx.Node, fx.Node]
) -> list[OnnxOp]:
    """Replace every norm that the operator can say; nodes that are `taken` stay. The operators that were put in;
    `replaced` is told what stands for which node."""
    ops = []
    for node in list(graph.graph.nodes):
        found = one_call(node) or written_out(node)
        if found is not None and fits(found):
            ops.append(replace(graph, found, taken, replaced))
    graph.graph.eliminate_dead_code()
    return ops


def one_call(node: fx.Node) -> Found | None:
    if node.target not in (aten.layer_norm.default, aten.rms_norm.default):
        return None
    given = arguments(node)
    if len(given["normalized_shape"]) != 1:
        return None
    epsilon = torch.finfo(torch.float32).eps if given["eps"] is None else float(given["eps"])
    centered = node.target is aten.layer_norm.default
    return Found(node, given["input"], (node,), given["weight"], given.get("bias"), epsilon, centered)


def written_out(node: fx.Node) -> Found | None:
    """x * rsqrt(mean(x^2) + epsilon) * weight."""
    if node.target is not aten.mul.Tensor:
        return None
    for unit, weight in (node.args, node.args[::-1]):
        if isinstance(weight, fx.Node) and len(shape_of(weight)) == 1 and (whole := root_mean_square(unit)):
            x, own, epsilon = whole
            return Found(node, x, own, weight, None, epsilon, centered=False)
    return None


def root_mean_square(node: Any) -> tuple[fx.Node, tuple[fx.Node, ...], float] | None:
    """(x, its readers, epsilon) of x * rsqrt(mean(x^2) + epsilon), which nobody else reads."""
    unit = lone(node, aten.mul.Tensor)
    if unit is None:
        return None
    for x, factor in (unit.args, unit.args[::-1]):
        root = lone(factor, aten.rsqrt.default)
        shifted = lone(root.args[0], aten.add.Tensor) if root is not None else None
        if shifted is None or not isinstance(shifted.args[1], float | int) or shifted.kwargs:
            continue
        mean = lone(shifted.args[0], aten.mean.dim)
        if mean is None:
            continue
        given = arguments(mean)
        over_last = given["dim"] in ([-1], [len(shape_of(mean)) - 1]) and given["keepdim"]
        square = square_of(given["self"])
        if over_last and square is not None and source(square.args[0]) is source(x):
            return source(x), (unit, square), float(shifted.args[1])
    return None


def square_of(node: Any) -> fx.Node | None:
    """The node that squares its first argument; None for anything else."""
    square = lone(node, aten.pow.Tensor_Scalar)
    if square is not None and square.args[1] == 2:
        return square
    product = lone(node, aten.mul.Tensor)
    return product if product is not None and product.args[0] is product.args[1] else None


def lone(node: Any, target: Any) -> fx.Node | None:
    """The call of `target` that `node` is a copy of, where it has one reader."""
    node = source(node)
    fits = isinstance(node, fx.Node) and node.target is target and len(node.users) == 1
    return node if fits else None


def fits(found: Found) -> bool:
    shape = shape_of(found.x)
    affine = [value for value in (found.weight, found.bias) if value is not None]
    rows = bool(shape) and shape[-1].isdigit() and all(shape_of(value) == shape[-1:] for value in affine)
    return rows and all(dtype_of(value) is torch.float32 for value in (found.root, found.x, *affine))


def replace(
    graph: fx.GraphModule, found: Found, taken: Container[fx.Node], replaced: dict[fx.Node, fx.Node]
) -> OnnxOp:
    """Put one call in the place of a norm, and of the addition in front of it."""
    root, x, residual = found.root, found.x, None
    inner = source(x)
    if (
        inner not in taken
        and set(readers(inner)) <= {*found.readers}
        and (addends := addends_of(inner)) is not None
    ):
        x, residual = addends
    op = Norm(found.centered, found.epsilon, found.bias is not None, residual is not None).op()
    with graph.graph.inserting_before(root):
        weight = found.weight
        if weight is None:
            name = unused(graph, f"{root.name}_weight")
            graph.register_buffer(name, torch.ones(int(shape_of(x)[-1])))
            weight = graph.graph.get_attr(name)
        inputs = [x, weight, found.bias, residual]
        while inputs[-1] is None:
            inputs.pop()
        call = call_op(graph, f"{root.name}_op", SymbolicOp(op, torch.float32), inputs)
    call.meta = dict(root.meta)
    root.replace_all_uses_with(call)
    replaced[root] = call
    return op
