"""One layer behind a compressed prefix: which weights it should have, and what is left to do once it has others.

Whatever stands in for a weight - a code, two factors, what is left of its columns - is fitted to the same task: weights
moved to undo what the prefix lost, under a gram that is trusted as far as its samples go. What the outputs are then off
on average goes into the layer's bias, or into the running mean of the batch norm behind it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from hashcompile.compensate import compensate
from hashcompile.core.bias import bias_target
from hashcompile.core.graph import CompressedGraph, replace_tensor
from hashcompile.core.layers import Kind, Layer, attribute
from hashcompile.core.method import Statistics
from hashcompile.output_error import output_error
from hashcompile.shrinkage import centred, noise_share, shrunk

# Of compensation, as a share of the mean input energy; by measurement. A convolution sees a thousand pixels an image; a
# linear layer has fewer samples for more inputs, would learn them by heart, and is held closer to its weights.
RIDGE = {Kind.LINEAR: 0.5, Kind.EMBEDDING: 0.5, Kind.CONV: 0.01, Kind.CONV_TRANSPOSE: 0.01}


@dataclass(frozen=True)
class LayerTask:
    layer: Layer
    original: Tensor  # the weight that there is
    weight: Tensor  # the one to come close to
    known: Statistics
    trusted: Statistics  # of centred inputs where a mean has a place to go; gram drawn towards data-free by its noise
    place: (
        tuple[str, int] | None
    )  # (path, sign) of a bias or a running mean that can take a shift of the outputs


def task_of(graph: CompressedGraph, node: fx.Node, layer: Layer, known: Statistics) -> LayerTask:
    """The task of the layer at `node`, which runs once, with the inputs that `known` tells of."""
    weight = attribute(graph, layer.parameter).detach()
    place = bias_target(node, layer) if known.mean is not None else None
    trusted = centred(known) if place is not None else known
    share = noise_share(trusted.gram, trusted.independent) if trusted.gram is not None else None
    moved = compensated(weight, layer, trusted, share)
    if trusted.gram is not None and share is not None:
        trusted = replace(trusted, gram=shrunk(trusted.gram, share))
    return LayerTask(layer, weight, moved, known, trusted, place)


def outcome(task: LayerTask, rows: Tensor) -> tuple[float, Tensor | None]:
    """Of a layer that computes with `rows: (N, K)`: its relative output error, once its outputs are shifted by so much,
    (N,) float64."""
    before, shift = task.layer.view.rows(task.original), None
    if task.place is not None:
        was, now = (before, task.trusted.mean_before), (rows, task.trusted.mean)
        shift = row_sums(task.layer, *was) - row_sums(task.layer, *now)
    return output_error(before, rows, task.known, shift), shift


def settle(graph: CompressedGraph, task: LayerTask, rows: Tensor) -> float:
    """Shift the bias for a layer that now computes with `rows: (N, K)`; its relative output error."""
    error, shift = outcome(task, rows)
    if task.place is not None and shift is not None:
        path, sign = task.place
        old = attribute(graph, path).detach()
        replace_tensor(graph, path, (old.double() + sign * shift).to(old.dtype))
    return error


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
