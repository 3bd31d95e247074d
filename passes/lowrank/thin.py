"""Randomised multiplication: some columns of a weight, and the same inputs.

Given:  %y = linear(%x, %w: (300, 784), %b)
Result: %z = index_select(%x, -1, %columns: (392,));  %y = linear(%z, %w': (300, 392), %b)
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from hashcompile.core.graph import CompressedGraph, replace_tensor
from hashcompile.core.kept import Kept
from hashcompile.core.layers import Kind, Layer, arguments, holder_of, layers, unfit, unused
from hashcompile.core.method import Outcome, Scope
from hashcompile.core.reshaping import Factored, Size
from hashcompile.passes.channels.surgery import refresh
from hashcompile.passes.lowrank.apply import refusal
from hashcompile.passes.lowrank.config import Sampled
from hashcompile.passes.lowrank.draw import draw
from hashcompile.passes.lowrank.geometry import geometries
from hashcompile.passes.lowrank.product import Product
from hashcompile.passes.lowrank.rewire import then
from hashcompile.passes.lowrank.tasks import Turn, turns

aten = torch.ops.aten


def sample(config: Sampled, scope: Scope) -> Outcome:
    """Thin the layers in scope."""
    graph = scope.graph
    nodes = {node.name: node for node in graph.graph.nodes}
    refused, fit = [], []
    for layer in layers(graph):
        if layer.name in scope.layers:
            reason = unfit(layer) or stays(layer, nodes[layer.consumers[0]], config)
            if reason:
                refused.append(refusal(layer, reason))
            else:
                fit.append(layer)
    places = geometries(graph, scope.sample, fit)
    done: list[Factored] = []
    drawn: dict[str, tuple[Layer, Tensor, Tensor]] = {}
    for number, turn in enumerate(turns(scope, fit)):
        layer, geometry = turn.layer, places[turn.layer.parameter]
        channels = layer.view.shape[1]
        gram = turn.task.trusted.gram
        product = Product.of(layer.view.rows(turn.task.weight), channels, None if gram is None else gram[0])
        before = geometry.dense
        columns, factor = draw(product, config.draws(channels), config.seed + number)
        after = Size(*(each * len(columns) // channels for each in (before.parameters, before.macs)))
        rows = torch.zeros_like(product.rows)
        rows[:, columns] = product.rows[:, columns] * factor[:, None]
        beside = svd_error(turn, gram, after)
        error = turn.take(graph, rows.flatten(1))
        drawn[layer.parameter] = layer, columns, rows[:, columns]
        done.append(
            Factored(
                layer.name,
                layer.parameter,
                (layer.parameter,),
                f"{len(columns)} of {channels} columns, sampled",
                (len(columns),),
                before,
                after,
                error,
                beside,
            )
        )
    kept: Kept = {}
    for parameter, (layer, columns, weight) in drawn.items():
        thin(graph, layer, columns, weight)
        kept[parameter] = {1: columns}
    refresh(graph)
    return Outcome(kept, tuple(refused), factored=tuple(done))


def stays(layer: Layer, node: fx.Node, config: Sampled) -> str | None:
    """Why a layer keeps its columns."""
    if Kind.EMBEDDING in layer.kinds:
        return "a table is looked up: there are no products of which some could stand for all"
    if layer.kind is Kind.CONV_TRANSPOSE or int(arguments(node).get("groups", 1)) > 1:
        return "its outputs do not all read all of its inputs: a transposed or grouped convolution"
    inputs = layer.view.shape[1]
    if config.draws(inputs) >= inputs:
        return f"{config.draws(inputs)} draws are no fewer than its {inputs} inputs"
    return None


def svd_error(turn: Turn, gram: Tensor | None, size: Size) -> float | None:
    """What two factors of so many parameters lose; None where not even rank one has so few."""
    rows = turn.layer.view.rows(turn.task.weight)
    rank = min(size.parameters // sum(rows.shape), *rows.shape)
    if not rank:
        return None
    product = Product.of(rows, rows.shape[1], None if gram is None else gram[0])
    basis = product.basis("svd" if gram is None else "whitened")[:rank]
    return turn.error(product.told(basis)[:, :, 0] @ basis)


def thin(graph: CompressedGraph, layer: Layer, columns: Tensor, weight: Tensor) -> None:
    """Let all readers of a layer's weight read `columns: (c,)` of their inputs."""
    dtype, shape = layer.dtype, layer.view.shape
    value = weight.reshape(shape[0], len(columns), *shape[2:])
    replace_tensor(graph, layer.parameter, value.to(dtype).contiguous())
    path = unused(graph, f"{layer.parameter}_columns")
    holder, leaf = holder_of(graph, path)
    holder.register_buffer(leaf, columns)
    for node in list(graph.graph.nodes):
        if node.name in layer.consumers:
            with graph.graph.inserting_before(node):
                held = graph.graph.get_attr(path)
                chosen = then(graph, node, aten.index_select.default, node.args[0], 1 - len(shape), held)
            node.update_arg(0, chosen)
