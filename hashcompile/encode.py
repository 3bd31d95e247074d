"""Replace every planned weight by its code, in one sweep over the calibration data.

Layer after layer, each on the inputs X that the encoded prefix really gives it. Its weights are first moved to undo
what the prefix lost (`compensate`), then encoded under the gram of X; what the outputs are then off on average goes
into the layer's bias, or into the running mean of the batch norm behind it. So the code need not spend bits on it, and
its gram is that of centred inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from hashcompile.calibrate import source_key, statistics
from hashcompile.core.console import Tracker
from hashcompile.core.encoded import CODES, EncodedWeight
from hashcompile.core.graph import CompressedGraph, flat_copy, replace_weight
from hashcompile.core.layers import attribute
from hashcompile.core.method import Compute, Statistics
from hashcompile.core.signature import Batch
from hashcompile.core.sweep import walk
from hashcompile.layer_task import settle, task_of
from hashcompile.output_error import output_error
from hashcompile.passes import method_of
from hashcompile.plan import Decision, Plan
from hashcompile.several_uses import joined, tied_statistics
from hashcompile.shrinkage import shrunk

# A weight with several uses: how far its common gram is drawn towards data-free, one after another, until no use loses
# more than `SLACK` against data-free. By measurement one per cent of an embedding's error halves that of a projection.
TOWARDS_FREE = (0.0, 0.5, 0.8, 0.95)
SLACK = 1.02


def encode(
    graph: CompressedGraph,
    plan: Plan,
    example: Batch,
    batches: Sequence[Batch],
    compute: Compute,
    tracker: Tracker,
) -> dict[str, float]:
    """Encode the planned layers of `graph` in place; their relative output errors, by parameter."""
    original = flat_copy(graph)
    errors = recalled(graph, plan, tracker)
    plan = replace(plan, decisions=tuple(d for d in plan if d.layer.parameter not in errors))
    surveys, untouched = surveyed(graph, plan, example, batches)
    by_consumer = {name: decision for decision in plan.encoded for name in decision.layer.consumers}
    tied = tied_statistics(original, [decision.layer for decision in plan.encoded], batches)
    latest: dict[Any, Statistics] = {}  # one entry: query, key and value share one input
    if batches:
        for (node, inputs), (_, before) in zip(walk(graph, batches), walk(original, batches), strict=True):
            decision = by_consumer.get(node.name)
            if (
                decision is None
                or decision.layer.parameter in errors
                or decision.layer.parameter in untouched
            ):
                continue
            layer = decision.layer
            found = surveys.get(layer.parameter, NOTHING)
            if layer.parameter in tied:
                errors[layer.parameter] = encode_tied(graph, decision, tied[layer.parameter], found, compute)
            else:
                key = source_key(node, layer)
                if key not in latest:
                    latest = {key: statistics(node, layer, inputs, before)}
                errors[layer.parameter] = encode_layer(
                    graph, node, decision, replace(latest[key], **found), compute
                )
            tracker.advance()
    for decision in plan.encoded:
        name = decision.layer.parameter
        if name not in errors:  # there is no calibration data, or it is to change nothing
            found = surveys.get(name, NOTHING)
            errors[name] = encode_tied(graph, decision, [Statistics(0)], found, compute)
            tracker.advance()
    return errors


def recalled(graph: CompressedGraph, plan: Plan, tracker: Tracker) -> dict[str, float]:
    """Put codes that weights had in the user's module where the plan asks for such; their errors, which are none."""
    codes: dict[str, EncodedWeight] = graph.meta.get(CODES, {})
    found: dict[str, float] = {}
    for decision in plan.encoded:
        name, method = decision.layer.parameter, decision.method
        assert method is not None
        if name not in codes or method.recall is None:
            continue
        code = method.recall(codes[name], decision.config)
        # an earlier stage may have changed the weight
        if code is not None and torch.equal(codes[name].stored()(), attribute(graph, name)):
            replace_weight(graph, name, code)
            found[name] = 0.0
            tracker.advance()
    return found


Found = Mapping[str, Any]  # fields of Statistics that a survey knows of a layer
NOTHING: Found = {}


def surveyed(
    graph: CompressedGraph, plan: Plan, example: Batch, batches: Sequence[Batch]
) -> tuple[dict[str, Found], frozenset[str]]:
    """What methods found out with all layers in view, by parameter; the weights that data are to leave as they are."""
    found: dict[str, Found] = {}
    untouched: set[str] = set()
    for config in dict.fromkeys(decision.config for decision in plan.encoded):
        survey = method_of(config).survey
        if survey is not None:
            layers = [decision.layer for decision in plan.encoded if decision.config == config]
            made = survey(config, layers, graph, example, batches)
            for layer in layers:
                name = layer.parameter
                parts = {"kept": made.kept, "seen": made.seen, "pool": made.pools}
                found[name] = {field: values.get(name) for field, values in parts.items()}
            untouched |= {layer.parameter for layer in layers if made.untouched}
    return found, frozenset(untouched)


def encode_layer(
    graph: CompressedGraph, node: fx.Node, decision: Decision, known: Statistics, compute: Compute
) -> float:
    """Encode a layer that runs once; its relative output error."""
    layer, method = decision.layer, decision.method
    assert method is not None
    task = task_of(graph, node, layer, known)
    code = method.encode(task.weight, layer, decision.config, task.trusted, compute)
    replace_weight(graph, layer.parameter, code)
    return settle(graph, task, code.rows().detach())


def encode_tied(
    graph: CompressedGraph,
    decision: Decision,
    uses: Sequence[Statistics],
    found: Found,
    compute: Compute,
) -> float:
    """Encode a weight for all its uses at once; the relative output error of the worst.

    Each use counts by what it loses in relation to its own outputs. Where one is worse off than without any data, the
    common gram is drawn towards data-free, and at last given up.
    """
    layer, method = decision.layer, decision.method
    assert method is not None
    weight = attribute(graph, layer.parameter).detach()
    rows, encode, config = layer.view.rows(weight), method.encode, decision.config

    def fitted(known: Statistics) -> tuple[EncodedWeight, list[float]]:
        code = encode(weight, layer, config, replace(known, **found), compute)
        return code, [output_error(rows, code.rows().detach(), use) for use in uses]

    code, errors = free = fitted(Statistics(0))
    common = joined(rows, uses)
    for portion in TOWARDS_FREE if common.count else ():
        known = common
        if common.gram is not None:
            known = replace(common, gram=shrunk(common.gram, torch.full((len(common.gram),), portion)))
        better = fitted(known)
        if all(error <= SLACK * most for error, most in zip(better[1], free[1], strict=True)):
            code, errors = better
            break
    replace_weight(graph, layer.parameter, code)
    return max(errors)
