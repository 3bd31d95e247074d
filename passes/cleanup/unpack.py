"""A parameter that is only read in parts -> one parameter a part.

Given:  %p = get_attr[attn.in_proj_weight]: (72, 24);  %s = aten.split_with_sizes(%p, [24, 48])
        %q = aten.linear(%x, %s[0], %b1);  %kv = aten.linear(%m, %s[1], %b2)
Result: %q = aten.linear(%x, get_attr[attn.in_proj_weight.0]: (24, 24), %b1)
        %kv = aten.linear(%m, get_attr[attn.in_proj_weight.1]: (48, 24), %b2)

So it is in multi-head attention whose keys are not its queries. Each part is then a layer's weight or bias like any
other, and `graph.meta[PARTS]` tells what it was part of.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from hashcompile.core.graph import remove_dead
from hashcompile.core.layers import CONSUMERS, arguments, attribute, consumes, holder_of
from hashcompile.core.reshaping import PARTS

aten = torch.ops.aten

SPLITS = (aten.split.Tensor, aten.split.sizes, aten.split_with_sizes.default, aten.chunk.default)


class Part(NamedTuple):
    """Rows `start` to `end` of a parameter, and a node that gives them."""

    start: int
    end: int
    node: fx.Node


def unpack(graph: fx.GraphModule) -> bool:
    """Take every parameter apart whose parts are the weights or the biases of layers. True if there was one."""
    readers: dict[nn.Parameter, list[fx.Node]] = {}
    for node in graph.graph.find_nodes(op="get_attr"):
        if isinstance(held := attribute(graph, str(node.target)), nn.Parameter):
            readers.setdefault(held, []).append(node)
    modified = False
    for parameter, nodes in readers.items():
        found = [part for node in nodes for part in parts_of(node)]
        bounds = sorted({(part.start, part.end) for part in found})
        edges = [0, *(end for _, end in bounds)]
        apart = len(bounds) > 1 and bounds == list(itertools.pairwise(edges))
        if apart and edges[-1] == len(parameter) and all(map(serves, found)):
            take_apart(graph, parameter, nodes, found, bounds)
            modified = True
    if modified:
        remove_dead(graph)
    return modified


def parts_of(packed: fx.Node) -> list[Part]:
    """What is read of a parameter; all of it where a reader takes something else than rows at fixed places."""
    rows, found = packed.meta["val"].shape[0] if packed.meta["val"].ndim else 0, []
    for user in packed.users:
        given = arguments(user) if user.target in (*SPLITS, aten.slice.Tensor) else {}
        along_rows = given.get("dim") == 0 and given["self"] is packed
        if along_rows and user.target is aten.slice.Tensor and given["step"] == 1:
            start, end = given["start"] or 0, rows if given["end"] is None else given["end"]
            if isinstance(start, int) and isinstance(end, int):
                start, end, _ = slice(start, end).indices(rows)
                found.append(Part(start, end, user))
                continue
        if along_rows and user.target in SPLITS and all(map(indexed, user.users)):
            edges = [0, *itertools.accumulate(value.shape[0] for value in user.meta["val"])]
            for item in user.users:
                position: Any = item.args[1]
                found.append(Part(edges[position], edges[position + 1], item))
            continue
        return [Part(0, rows, packed)]
    return found


def indexed(node: fx.Node) -> bool:
    return len(node.args) == 2 and isinstance(node.args[1], int)


def serves(part: Part) -> bool:
    """Is it the weight of all that read it, or the bias?"""
    node = part.node
    return bool(node.users) and all(consumes(user, node) or adds(user, node) for user in node.users)


def adds(layer: fx.Node, bias: fx.Node) -> bool:
    return layer.target in CONSUMERS and arguments(layer).get("bias") is bias and layer.args.count(bias) < 2


def take_apart(
    graph: fx.GraphModule,
    parameter: nn.Parameter,
    nodes: Sequence[fx.Node],
    parts: Sequence[Part],
    bounds: Sequence[tuple[int, int]],
) -> None:
    own = [nn.Parameter(parameter.detach()[a:b].clone(), parameter.requires_grad) for a, b in bounds]
    names = list(dict.fromkeys(str(node.target) for node in nodes))
    tied: dict[str, list[str]] = graph.meta["tied"]
    paths = dict.fromkeys(other for name in names for other in (name, *tied.get(name, ())))
    told = {path: [f"{path}.{place}" for place in range(len(own))] for path in paths}
    graph.meta[PARTS].update(told)
    for place in range(len(own)) if len(paths) > 1 else ():
        same = [each[place] for each in told.values()]
        tied.update({name: [other for other in same if other != name] for name in same})
    for name in names:
        holder, leaf = holder_of(graph, name)
        delattr(holder, leaf)
        holder.register_module(leaf, pieces := nn.Module())
        for place, each in enumerate(own):
            pieces.register_parameter(str(place), each)
    name = names[0]
    for start, end, node in parts:
        with graph.graph.inserting_before(node):
            read = graph.graph.get_attr(told[name][bounds.index((start, end))])
        read.meta = {"val": node.meta["val"]}
        node.replace_all_uses_with(read)
