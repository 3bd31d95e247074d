"""Replace every planned weight by its code, in one sweep over the calibration data.

Layer after layer, each on the inputs X that the encoded prefix really gives it. Its weights are first moved to undo
what the prefix lost (`compensate`), then encoded under the gram of X; what the outputs are then off on average goes
into the layer's bias, or into the running mean of the batch norm behind it. So the code need not spend bits on it, and
its gram is that of centred inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from hashcompile.calibrate import statistics
from hashcompile.compensate import compensate
from hashcompile.core.console import Tracker
from hashcompile.core.graph import CompressedGraph, flat_copy, replace_tensor, replace_weight
from hashcompile.core.layers import CONSUMERS, Kind, Layer, Window, arguments, attribute
from hashcompile.core.method import Compute, Statistics
from hashcompile.core.signature import Batch
from hashcompile.core.sweep import activation, walk
from hashcompile.plan import Decision, Plan

aten = torch.ops.aten

# Of compensation, as a share of the mean input energy; by measurement. A convolution sees a thousand pixels an image; a
# linear layer has fewer samples for more inputs, would learn them by heart, and is held closer to its weights.
RIDGE = {Kind.LINEAR: 0.5, Kind.EMBEDDING: 0.5, Kind.CONV: 0.01, Kind.CONV_TRANSPOSE: 0.01}


def encode(
    graph: CompressedGraph, plan: Plan, batches: Sequence[Batch], compute: Compute, tracker: Tracker
) -> dict[str, float]:
    """Encode the planned layers of `graph` in place; their relative output errors, by parameter."""
    original = flat_copy(graph)
    by_consumer = {name: decision for decision in plan.encoded for name in decision.layer.consumers}
    tied = tied_statistics(original, plan, batches)
    errors: dict[str, float] = {}
    latest: dict[Any, Statistics] = {}  # one entry: query, key and value share one input
    if batches:
        for (node, inputs), (_, before) in zip(walk(graph, batches), walk(original, batches), strict=True):
            decision = by_consumer.get(node.name)
            if decision is None or decision.layer.parameter in errors:
                continue
            layer = decision.layer
            known = tied.get(layer.parameter)
            if known is None:
                key = source_key(node, layer)
                if key not in latest:
                    latest = {key: statistics(node, layer, inputs, before)}
                known = latest[key]
            errors[layer.parameter] = encode_layer(graph, node, decision, known, compute)
            tracker.advance()
    nodes = {node.name: node for node in graph.graph.nodes}
    for decision in plan.encoded:
        if decision.layer.parameter not in errors:  # there is no calibration data
            node = nodes[decision.layer.consumers[0]]
            errors[decision.layer.parameter] = encode_layer(graph, node, decision, Statistics(0), compute)
            tracker.advance()
    return errors


def encode_layer(
    graph: CompressedGraph, node: fx.Node, decision: Decision, known: Statistics, compute: Compute
) -> float:
    """Encode one layer; its relative output error on the calibration data (on the weights, without data)."""
    layer, method = decision.layer, decision.method
    assert method is not None
    weight = attribute(graph, layer.parameter).detach()
    target = bias_target(node, layer) if known.mean is not None else None
    if target is not None:
        known = centred(known)
    code, error = method.encode(compensated(weight, layer, known), layer, decision.config, known, compute)
    if target is not None:
        shift = row_sums(layer, layer.view.rows(weight), known.mean_before)
        shift = shift - row_sums(layer, code.rows().detach(), known.mean)
        path, sign = target
        replace_tensor(graph, path, (attribute(graph, path).detach().double() + sign * shift).float())
    replace_weight(graph, layer.parameter, code)
    return error


def compensated(weight: Tensor, layer: Layer, known: Statistics) -> Tensor:
    """`weight`, moved so that its outputs on the inputs behind the encoded prefix come closest to the original's."""
    if known.gram is None or known.cross is None or torch.equal(known.gram, known.cross):
        return weight
    sets = layer.view.rows(weight).reshape(len(known.gram), -1, layer.view.size[1])
    ridge = RIDGE[layer.kind]
    moved = [compensate(*each, ridge) for each in zip(sets, known.gram, known.cross, strict=True)]
    return layer.view.weight(torch.cat(moved))


def row_sums(layer: Layer, rows: Tensor, mean: Tensor | None) -> Tensor:
    """(N,) float64: the output of every row for the mean input of its set."""
    assert mean is not None
    sets = rows.reshape(len(mean), -1, layer.view.size[1]).double()
    return torch.einsum("snk,sk->sn", sets, mean).flatten()


def centred(known: Statistics) -> Statistics:
    """The statistics of X - mean(X) and X0 - mean(X0)."""
    gram, cross, mean, mean_before = known.gram, known.cross, known.mean, known.mean_before
    assert gram is not None and cross is not None and mean is not None and mean_before is not None
    gram = gram - known.count * mean.unsqueeze(2) * mean.unsqueeze(1)
    cross = cross - known.count * mean_before.unsqueeze(2) * mean.unsqueeze(1)
    return replace(known, gram=gram, cross=cross)


def bias_target(node: fx.Node, layer: Layer) -> tuple[str, int] | None:
    """Where a shift of this layer's outputs can go: (path, sign) of a bias, or of the mean of a batch norm."""
    if len(layer.consumers) > 1 or layer.kind not in (Kind.LINEAR, Kind.CONV):
        return None
    bias = arguments(node)["bias"]
    if bias is not None:
        alone = bias.op == "get_attr" and len(bias.users) == 1
        return (str(bias.target), 1) if alone else None
    users = list(node.users)
    if len(users) == 1 and users[0].target is aten.batch_norm.default:
        mean = arguments(users[0])["running_mean"]
        if mean is not None and mean.op == "get_attr" and len(mean.users) == 1:
            return str(mean.target), -1
    return None


def tied_statistics(original: fx.GraphModule, plan: Plan, batches: Sequence[Batch]) -> dict[str, Statistics]:
    """Statistics of weights with several consumers, from the original model: their last consumer runs after the first.

    An embedding tied to an output projection is fitted to the projection, whose inputs weigh its columns.
    """
    tied = {d.layer.consumers[-1]: d.layer for d in plan.encoded if len(d.layer.consumers) > 1}
    if not tied or not batches:
        return {}
    return {
        tied[node.name].parameter: statistics(node, tied[node.name], inputs, inputs)
        for node, inputs in walk(original, batches)
        if node.name in tied
    }


def source_key(node: fx.Node, layer: Layer) -> Any:
    """Layers with equal keys have equal statistics."""
    kind = CONSUMERS[node.target][0]
    window = Window.of(node, layer.view.shape) if kind in (Kind.CONV, Kind.CONV_TRANSPOSE) else None
    return activation(node), kind, window, layer.view.shape if kind is Kind.EMBEDDING else None
