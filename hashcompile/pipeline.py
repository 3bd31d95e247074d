"""The ordered passes. What comes before what is decided here and nowhere else.

for each stage of the user's method:
    plan the layers
    sweep the graph once over the calibration data: encode each layer on the inputs that the encoded prefix gives it,
    and let its bias (or the batch norm behind it) absorb what the code shifts on average
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from hashcompile.calibrate import Batch, activation, statistics, sweep
from hashcompile.core.console import Tracker, progress
from hashcompile.core.graph import CompressedGraph, check, replace_tensor, replace_weight
from hashcompile.core.layers import CONSUMERS, Kind, Layer, Window, arguments, attribute
from hashcompile.core.method import Compute, Statistics
from hashcompile.plan import Decision, Plan, Rules, make_plan

aten = torch.ops.aten


def run(
    graph: CompressedGraph, stages: Sequence[Rules], batches: Sequence[Batch], compute: Compute, show: bool
) -> tuple[Plan, dict[str, float]]:
    """Compress `graph` in place; the plan, and the relative output error of each encoded layer, by parameter."""
    plan: Plan | None = None
    errors: dict[str, float] = {}
    for rules in stages:
        stage = make_plan(graph, rules)
        plan = plan.then(stage) if plan else stage
        with progress("encoding", len(stage.encoded), show) as tracker:
            errors |= encode(graph, stage, batches, compute, tracker)
        graph.recompile()
        check(graph)
    assert plan is not None
    return plan, errors


def encode(
    graph: CompressedGraph, plan: Plan, batches: Sequence[Batch], compute: Compute, tracker: Tracker
) -> dict[str, float]:
    """Replace every planned weight by its code; the relative output errors."""
    by_consumer = {name: decision for decision in plan.encoded for name in decision.layer.consumers}
    seen = tied_statistics(graph, plan, batches)
    errors: dict[str, float] = {}
    latest: dict[Any, Statistics] = {}  # one entry: query, key and value share one input

    def before(node: fx.Node, inputs: list[Tensor]) -> None:
        decision = by_consumer.get(node.name)
        if decision is None or decision.layer.parameter in errors:
            return
        layer = decision.layer
        known = seen.get(layer.parameter)
        if known is None:
            key = source_key(node, layer)
            if key not in latest:
                latest.clear()
                latest[key] = statistics(node, layer, inputs)
            known = latest[key]
        errors[layer.parameter] = encode_layer(graph, node, decision, known, compute)
        tracker.advance()

    if batches:
        sweep(graph, batches, before)
    for decision in plan.encoded:  # all of them without data; with it, those that the sweep did not reach
        if decision.layer.parameter not in errors:
            node = next(node for node in graph.graph.nodes if node.name == decision.layer.consumers[0])
            errors[decision.layer.parameter] = encode_layer(graph, node, decision, None, compute)
            tracker.advance()
    return errors


def encode_layer(
    graph: CompressedGraph, node: fx.Node, decision: Decision, known: Statistics | None, compute: Compute
) -> float:
    """Encode one layer; its relative output error on the calibration data (on the weights, without data)."""
    layer, method = decision.layer, decision.method
    assert method is not None
    weight = attribute(graph, layer.parameter).detach()
    target = bias_target(graph, node, layer) if known is not None and known.mean is not None else None
    if target is not None and known is not None:
        known = centred(known)  # the mean of the error is the bias's to absorb, so the code need not
    code, error = method.encode(weight, layer, decision.config, known, compute)
    if target is not None and known is not None and known.mean is not None:
        rows = layer.view.rows(weight) - code.rows().detach()
        sets = rows.reshape(len(known.mean), -1, rows.shape[1]).double()
        shift = torch.einsum("snk,sk->sn", sets, known.mean).flatten()
        path, sign = target
        replace_tensor(graph, path, (attribute(graph, path).detach().double() + sign * shift).float())
    replace_weight(graph, layer.parameter, code)
    return error


def bias_target(graph: CompressedGraph, node: fx.Node, layer: Layer) -> tuple[str, int] | None:
    """Where a shift of this layer's outputs can be absorbed: (path, sign) of a bias, or of the mean of a batch norm."""
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


def centred(known: Statistics) -> Statistics:
    """The statistics of X - mean(X)."""
    assert known.gram is not None and known.mean is not None
    outer = known.mean.unsqueeze(2) * known.mean.unsqueeze(1)
    return replace(known, gram=known.gram - known.count * outer)


def tied_statistics(graph: CompressedGraph, plan: Plan, batches: Sequence[Batch]) -> dict[str, Statistics]:
    """Statistics of weights with several consumers, from the graph as it is: their last consumer runs after the first.

    An embedding tied to an output projection is fitted to the projection, whose inputs weigh its columns.
    """
    tied = {d.layer.consumers[-1]: d.layer for d in plan.encoded if len(d.layer.consumers) > 1}
    seen: dict[str, Statistics] = {}

    def before(node: fx.Node, inputs: list[Tensor]) -> None:
        if layer := tied.get(node.name):
            seen[layer.parameter] = statistics(node, layer, inputs)

    if tied and batches:
        sweep(graph, batches, before)
    return seen


def source_key(node: fx.Node, layer: Layer) -> Any:
    """Layers with equal keys have equal statistics."""
    kind = CONSUMERS[node.target][0]
    window = Window.of(node, layer.view.shape) if kind in (Kind.CONV, Kind.CONV_TRANSPOSE) else None
    return activation(node), kind, window, layer.view.shape if kind is Kind.EMBEDDING else None
