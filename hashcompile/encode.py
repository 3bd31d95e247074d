"""Replace every planned weight by its code, in one sweep over the calibration data.

Layer after layer, each on the inputs X that the encoded prefix really gives it. Its weights are first moved to undo
what the prefix lost (`compensate`), then encoded under the gram of X; what the outputs are then off on average goes
into the layer's bias, or into the running mean of the batch norm behind it. So the code need not spend bits on it, and
its gram is that of centred inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from hashcompile.calibrate import statistics
from hashcompile.compensate import compensate
from hashcompile.core.bias import bias_target
from hashcompile.core.console import Tracker
from hashcompile.core.encoded import EncodedWeight
from hashcompile.core.graph import CompressedGraph, flat_copy, replace_tensor, replace_weight
from hashcompile.core.layers import CONSUMERS, Kind, Layer, Window, attribute
from hashcompile.core.method import Compute, Statistics
from hashcompile.core.signature import Batch
from hashcompile.core.sweep import activation, walk
from hashcompile.output_error import output_error
from hashcompile.plan import Decision, Plan
from hashcompile.shrinkage import centred, noise_share, shrunk

aten = torch.ops.aten

# Of compensation, as a share of the mean input energy; by measurement. A convolution sees a thousand pixels an image; a
# linear layer has fewer samples for more inputs, would learn them by heart, and is held closer to its weights.
RIDGE = {Kind.LINEAR: 0.5, Kind.EMBEDDING: 0.5, Kind.CONV: 0.01, Kind.CONV_TRANSPOSE: 0.01}

# A weight with several uses: how far its common gram is drawn towards data-free, one after another, until no use loses
# more than `SLACK` against data-free. By measurement one per cent of an embedding's error halves that of a projection.
TOWARDS_FREE = (0.0, 0.5, 0.8, 0.95)
SLACK = 1.02


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
            if layer.parameter in tied:
                errors[layer.parameter] = encode_tied(graph, decision, tied[layer.parameter], compute)
            else:
                key = source_key(node, layer)
                if key not in latest:
                    latest = {key: statistics(node, layer, inputs, before)}
                errors[layer.parameter] = encode_layer(graph, node, decision, latest[key], compute)
            tracker.advance()
    for decision in plan.encoded:
        if decision.layer.parameter not in errors:  # there is no calibration data
            errors[decision.layer.parameter] = encode_tied(graph, decision, [Statistics(0)], compute)
            tracker.advance()
    return errors


def encode_layer(
    graph: CompressedGraph, node: fx.Node, decision: Decision, known: Statistics, compute: Compute
) -> float:
    """Encode a layer that runs once; its relative output error."""
    layer, method = decision.layer, decision.method
    assert method is not None
    weight = attribute(graph, layer.parameter).detach()
    target = bias_target(node, layer) if known.mean is not None else None
    trusted = centred(known) if target is not None else known
    share = noise_share(trusted.gram, trusted.independent) if trusted.gram is not None else None
    moved = compensated(weight, layer, trusted, share)
    if trusted.gram is not None and share is not None:
        trusted = replace(trusted, gram=shrunk(trusted.gram, share))
    code = method.encode(moved, layer, decision.config, trusted, compute)
    shift = None
    if target is not None:
        shift = row_sums(layer, layer.view.rows(weight), trusted.mean_before)
        shift = shift - row_sums(layer, code.rows().detach(), trusted.mean)
        path, sign = target
        replace_tensor(graph, path, (attribute(graph, path).detach().double() + sign * shift).float())
    replace_weight(graph, layer.parameter, code)
    return output_error(layer.view.rows(weight), code.rows().detach(), known, shift)


def encode_tied(
    graph: CompressedGraph, decision: Decision, uses: Sequence[Statistics], compute: Compute
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
        code = encode(weight, layer, config, known, compute)
        return code, [output_error(rows, code.rows().detach(), use) for use in uses]

    code, errors = free = fitted(Statistics(0))
    common = joined(rows, uses)
    for portion in TOWARDS_FREE if common.count else ():
        known = common
        if common.gram is not None:
            known = replace(common, gram=shrunk(common.gram, torch.full((len(common.gram),), portion)))
        found = fitted(known)
        if all(error <= SLACK * most for error, most in zip(found[1], free[1], strict=True)):
            code, errors = found
            break
    replace_weight(graph, layer.parameter, code)
    return max(errors)


def joined(rows: Tensor, uses: Sequence[Statistics]) -> Statistics:
    """One gram under which the relative output errors of all uses add up, (S, K, K).

    The rows of an embedding are read with other frequencies than the rows of a projection are computed; where both
    use a weight, reading counts for all rows alike.
    """
    grams = []
    for use in uses:
        if use.gram is not None and use.gram_before is not None:
            sets = rows.double().reshape(len(use.gram), -1, rows.shape[1])
            energy = float((sets @ use.gram_before * sets).sum()) or 1.0
            grams.append(shrunk(use.gram, noise_share(use.gram, use.independent)) / energy)
    counts = [use.row_counts for use in uses if use.row_counts is not None]
    if not grams:
        return Statistics(
            sum(use.count for use in uses), row_counts=torch.stack(counts).sum(0) if counts else None
        )
    for often in counts:
        energy = float((rows.double().square().sum(1) * often).sum()) or 1.0
        grams.append(often.mean() / energy * torch.eye(rows.shape[1], dtype=torch.float64)[None])
    most = math.lcm(*map(len, grams))
    gram = torch.stack([each.repeat_interleave(most // len(each), 0) for each in grams]).sum(0)
    return Statistics(sum(use.count for use in uses), gram=gram)


def compensated(weight: Tensor, layer: Layer, known: Statistics, share: Tensor | None) -> Tensor:
    """`weight`, moved so that its outputs on the inputs behind the encoded prefix come closest to the original's.

    The more of the gram is noise, the closer it is held to the weights.
    """
    if known.gram is None or known.cross is None or share is None or layer.kind is None:
        return weight
    if torch.equal(known.gram, known.cross):
        return weight
    sets = layer.view.rows(weight).reshape(len(known.gram), -1, layer.view.size[1])
    ridges = (share / (1 - share)).clamp_min(RIDGE[layer.kind]).tolist()
    moved = [
        compensate(rows, gram, cross, ridge) if math.isfinite(ridge) else rows
        for rows, gram, cross, ridge in zip(sets, known.gram, known.cross, ridges, strict=True)
    ]
    return layer.view.weight(torch.cat(moved))


def row_sums(layer: Layer, rows: Tensor, mean: Tensor | None) -> Tensor:
    """(N,) float64: the output of every row for the mean input of its set."""
    assert mean is not None
    sets = rows.reshape(len(mean), -1, layer.view.size[1]).double()
    return torch.einsum("snk,sk->sn", sets, mean).flatten()


def tied_statistics(
    original: fx.GraphModule, plan: Plan, batches: Sequence[Batch]
) -> dict[str, list[Statistics]]:
    """Statistics of every use of the weights with several, by parameter: from the original model, since a weight is
    encoded in front of its first use, and its last runs behind that.
    """
    tied = {name: d.layer for d in plan.encoded if len(d.layer.consumers) > 1 for name in d.layer.consumers}
    found: dict[str, list[Statistics]] = {}
    if tied and batches:
        for node, inputs in walk(original, batches):
            if layer := tied.get(node.name):
                found.setdefault(layer.parameter, []).append(statistics(node, layer, inputs, inputs))
    return found


def source_key(node: fx.Node, layer: Layer) -> Any:
    """Layers with equal keys have equal statistics."""
    kind = CONSUMERS[node.target][0]
    window = Window.of(node, layer.view.shape) if kind in (Kind.CONV, Kind.CONV_TRANSPOSE) else None
    return activation(node), kind, window, layer.view.shape if kind is Kind.EMBEDDING else None
