"""One node becomes two or three; the last of them is the node that was there.

Given:  %y = linear(%x, %w: (300, 784), %b)
Result: %z = linear(%x, %down: (40, 784));  %y = linear(%z, %up: (300, 40), %b)

Factors are parameters under the layer's name: `fc1.weight` becomes `fc1.down.weight` and `fc1.up.weight`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from hashcompile.core.graph import CompressedGraph
from hashcompile.core.layers import CONSUMERS, Kind, Layer, arguments, attribute, holder_of, unused

aten = torch.ops.aten
CONV = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}


def rewire(graph: CompressedGraph, layer: Layer, factors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Put `factors` in the place of a layer's weight, for all its readers; the names of their parameters."""
    old = [node for node in graph.graph.nodes if node.op == "get_attr" and node.target == layer.parameter]
    names = hold(graph, layer, factors)
    for node in list(graph.graph.nodes):
        if node.name not in layer.consumers:
            continue
        with graph.graph.inserting_before(node):
            held = {factor: graph.graph.get_attr(name) for factor, name in zip(factors, names, strict=True)}
            kind = CONSUMERS[node.target][0]
            if kind is Kind.CONV:
                convolve(graph, node, held, {name: tuple(value.shape) for name, value in factors.items()})
            elif kind is Kind.EMBEDDING:
                read(graph, node, held)
            else:
                multiply(graph, node, held, tied=Kind.EMBEDDING in layer.kinds)
    for weight in old:
        graph.graph.erase_node(weight)
    return names


def hold(graph: CompressedGraph, layer: Layer, factors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Take the weight away, and hang the factors where it was."""
    trains = attribute(graph, layer.parameter).requires_grad
    delattr(*holder_of(graph, layer.parameter))
    home: nn.Module = graph
    for part in layer.name.split("."):
        if not hasattr(home, part):
            home.add_module(part, nn.Module())
        home = getattr(home, part)
    names = []
    for factor, value in factors.items():
        factor = unused(home, factor)
        child = nn.Module()
        child.register_parameter("weight", nn.Parameter(value.to(layer.dtype).contiguous(), trains))
        home.add_module(factor, child)
        names.append(f"{layer.name}.{factor}.weight")
    return tuple(names)


def then(graph: CompressedGraph, like: fx.Node, target: Any, *args: Any) -> fx.Node:
    node = graph.graph.call_function(target, args)
    node.meta = {key: value for key, value in like.meta.items() if key == "stack_trace"}
    return node


def become(node: fx.Node, target: Any, *args: Any) -> None:
    node.target, node.args, node.kwargs = target, args, {}


def multiply(graph: CompressedGraph, node: fx.Node, held: Mapping[str, fx.Node], tied: bool) -> None:
    """x W' = (x down') up'. The factors of a table that is also an embedding are met the other way round: W = down up',
    x W' = (x up) down'."""
    given = arguments(node)
    if tied:
        inner, outer = then(graph, node, aten.matmul.default, given["input"], held["up"]), held["down"]
    else:
        inner, outer = then(graph, node, aten.linear.default, given["input"], held["down"]), held["up"]
    become(node, aten.linear.default, inner, outer, given["bias"])


def read(graph: CompressedGraph, node: fx.Node, held: Mapping[str, fx.Node]) -> None:
    given = arguments(node)
    rest = [value for name, value in given.items() if name not in ("weight", "indices")]
    inner = then(graph, node, node.target, held["down"], given["indices"], *rest)
    become(node, aten.linear.default, inner, held["up"])


def convolve(
    graph: CompressedGraph, node: fx.Node, held: Mapping[str, fx.Node], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Each factor takes the part of stride, padding and dilation that its kernel has dims for."""
    given = arguments(node)
    value: fx.Node = given["input"]
    kernels = {factor: shape[2:] for factor, shape in shapes.items()}
    spread = spatial_dims(kernels)
    dims = len(next(iter(kernels.values())))
    last = list(held)[-1]
    for factor, weight in held.items():
        whole = spread[factor]
        string = isinstance(given["padding"], str)
        padding = given["padding"] if string else part(given["padding"], whole, 0)
        target = node.target if string else CONV[dims]
        rest = (part(given["stride"], whole, 1), padding, part(given["dilation"], whole, 1), 1)
        if factor == last:
            become(node, target, value, weight, given["bias"], *rest)
        else:
            value = then(graph, node, target, value, weight, None, *rest)


def spatial_dims(kernels: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[bool, ...]]:
    """Which spatial dims each factor convolves. Where all are 1x1, the first; a stride may be there still."""
    dims = len(next(iter(kernels.values())))
    if tuple(kernels) == ("down", "up") and any(size > 1 for size in kernels["up"]):
        return {"down": (True, False), "up": (False, True)}  # a column of taps, then a row
    kernel = "core" if "core" in kernels else "down"
    return {factor: (factor == kernel,) * dims for factor in kernels}


def part(values: Any, whole: tuple[bool, ...], neutral: int) -> list[int]:
    entries = list(values) if isinstance(values, (list, tuple)) else [values]
    entries = entries * len(whole) if len(entries) == 1 else entries
    return [value if mine else neutral for value, mine in zip(entries, whole, strict=True)]
