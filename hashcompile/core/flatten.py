"""Flat copies of a compressed graph, exported again: what the ONNX file and the artifact are made from."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn

from hashcompile.core.encoded import encoded_weights
from hashcompile.core.graph import CompressedGraph
from hashcompile.core.layers import holder_of


def dense_shapes(flat: CompressedGraph) -> CompressedGraph:
    """`flat` with a parameter without memory in the place of every encoded weight: its structure alone."""
    for name, code in encoded_weights(flat).items():
        holder, leaf = holder_of(flat, name)
        delattr(holder, leaf)
        holder.register_parameter(leaf, nn.Parameter(torch.zeros(()).expand(code.view.shape)))
        for node in list(flat.graph.nodes):
            if node.op == "call_module" and node.target == name:
                with flat.graph.inserting_before(node):
                    held = flat.graph.get_attr(name)
                held.meta = dict(node.meta)
                node.replace_all_uses_with(held)
                flat.graph.erase_node(node)
    flat.recompile()
    return flat


def reexport(
    flat: fx.GraphModule, example: Iterable[Tensor], shapes: Iterable[Iterable[int | str]]
) -> torch.export.ExportedProgram:
    """Export a flat graph again; a size given as a string stays symbolic."""
    dynamic: tuple[Any, ...] = tuple(
        {dim: torch.export.Dim.AUTO for dim, size in enumerate(shape) if isinstance(size, str)}
        for shape in shapes
    )
    with torch.no_grad():
        return torch.export.export(flat, tuple(example), dynamic_shapes=dynamic, strict=False)


def origins(program: torch.export.ExportedProgram, graph: fx.GraphModule) -> dict[str, str]:
    """Value of the program -> node of `graph`, of which a flat copy was exported; of the values that one node became,
    the last. What is taken out of several values, PyTorch traces back to the node that gives them all.
    """
    nodes = {node.name for node in graph.graph.nodes}
    taken: dict[tuple[str | None, Any], str] = {
        (node.args[0].name, node.args[1]): node.name
        for node in graph.graph.nodes
        if node.target is operator.getitem and isinstance(node.args[0], fx.Node)
    }
    several = {name for name, _ in taken}
    last: dict[str, str] = {}
    for node in program.graph.nodes:
        source = origin(node)
        if node.target is operator.getitem and source in several:
            source = taken.get((source, node.args[1]))  # None: a part that nobody reads
        if source is not None and source in nodes:
            last[source] = node.name
    return {value: node for node, value in last.items()}


def origin(node: fx.Node) -> str | None:
    """The name of the node of the first graph that became `node`."""
    sources, name = node.meta.get("from_node") or [], None
    while sources:
        name, sources = sources[-1].name, sources[-1].from_node
    return name
