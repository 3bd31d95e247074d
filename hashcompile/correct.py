"""What removed channels said, said by those that stay: a correction after any pruning or merging.

The reshaped graph and the original walk over the calibration data side by side, and stop in front of every layer. There
the inputs of both are known, behind all nonlinearities, and the layer is reconstructed (`reconstruct.py`): first those
that lost inputs, then whatever comes behind them, each on the inputs that the layers corrected before it really give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor, fx

from hashcompile.core.graph import CompressedGraph
from hashcompile.core.kept import Kept
from hashcompile.core.layers import Kind, Layer, arguments, attribute, layers
from hashcompile.core.reshaping import Corrected
from hashcompile.core.signature import Batch
from hashcompile.core.sweep import walk
from hashcompile.reconstruct import Correction, Narrowed, Use, reconstruct


def correct(
    graph: CompressedGraph,
    original: fx.GraphModule,
    narrowed: Mapping[str, Narrowed],
    batches: Sequence[Batch],
    how: Correction,
) -> list[Corrected]:
    """Correct the layers of `graph` in place, in execution order.

    A weight with several uses is corrected at the first, for all of them. Where some layers in front of the others are
    not corrected yet, a second sweep finds them corrected.

    narrowed: for every layer, by parameter.
    """
    found = {layer.consumers[0]: layer for layer in layers(graph) if layer.parameter in narrowed}
    sweeps = 2 if any(len(layer.consumers) > 1 for layer in found.values()) else 1
    unshifted: dict[str, Tensor] = {}
    results: dict[str, Corrected] = {}
    for _ in range(sweeps):
        before = Originals(original, batches)
        for node, inputs in walk(graph, batches):
            if (layer := found.get(node.name)) is None:
                continue
            was = narrowed[layer.parameter]
            given = [(node, inputs)] if len(layer.consumers) == 1 else uses_of(graph, layer, batches)
            old = [was.read(each, layer) for each in before.inputs(layer.parameter)]
            uses = [Use(*use, known) for use, known in zip(given, old, strict=True)]
            if was.inputs.shape[1] > was.inputs.shape[2] or not all(map(same, uses)):
                now = reconstruct(graph, uses, layer, was, how, unshifted)
                first = results.get(layer.name, now)
                results[layer.name] = replace(now, before=first.before)
    return list(results.values())


def same(use: Use) -> bool:
    return all(map(torch.equal, use.inputs, use.old))


def uses_of(
    graph: CompressedGraph, layer: Layer, batches: Sequence[Batch]
) -> list[tuple[fx.Node, list[Tensor]]]:
    """Every node that reads the layer's weight, and its inputs, in execution order."""
    return [(node, inputs) for node, inputs in walk(graph, batches) if node.name in layer.consumers]


class Originals:
    """The inputs of the original model's layers, by parameter, for a reader in about the same order."""

    def __init__(self, original: fx.GraphModule, batches: Sequence[Batch]) -> None:
        self._layers = {name: layer for layer in layers(original) for name in layer.consumers}
        self._counts = {layer.parameter: len(layer.consumers) for layer in self._layers.values()}
        self._walk = walk(original, batches)
        self._passed: dict[str, list[list[Tensor]]] = {}

    def inputs(self, parameter: str) -> list[list[Tensor]]:
        """Of each use, one a batch."""
        while len(self._passed.get(parameter, ())) < self._counts[parameter]:
            node, values = next(self._walk)
            if layer := self._layers.get(node.name):
                self._passed.setdefault(layer.parameter, []).append(values)
        return self._passed.pop(parameter)


def unfoldable(layer: Layer | None) -> str | None:
    """Why what a weight reads cannot be told by others: changed for one reader, it would be changed for all."""
    if layer is None or not layer.consumers:
        return "a weight that reads them is no layer's, and is not rewritten"
    if Kind.EMBEDDING in layer.kinds:
        return f"{layer.name} both makes and reads them, and cannot be changed for one alone"
    if layer.others:
        return f"{layer.name} is also read by {', '.join(layer.others)}"
    return None


def narrowed_by(
    graph: CompressedGraph,
    original: fx.GraphModule,
    kept: Kept,
    weights: Mapping[str, Tensor] = MappingProxyType({}),
    merged: Mapping[str, Stands] = MappingProxyType({}),
    blocks: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Narrowed]:
    """What became of the layers of `original`, now those of `graph`, by parameter, as far as they can be rewritten.

    Args:
        kept: what is left of their parameters.
        weights: full weights where outputs are not to be those of the original.
        merged: what stands for each original input, where that is not itself or nothing.
        blocks: how many consecutive inputs belong to one unit, where more than one do: a flattened image of a channel.
    """
    before = {layer.parameter: layer for layer in layers(original)}
    found = {}
    for layer in layers(graph):
        old = before.get(layer.parameter)
        if old is None or unfoldable(layer):
            continue
        found[layer.parameter] = narrowed(
            layer,
            weights.get(layer.parameter, attribute(original, layer.parameter).detach()),
            kept.get(layer.parameter, {}),
            (groups_of(original, old), groups_of(graph, layer)),
            merged.get(layer.parameter),
            blocks.get(layer.parameter, 1),
        )
    return found


def narrowed(
    layer: Layer,
    weight: Tensor,
    kept: Mapping[int, Tensor],
    groups: tuple[int, int],
    stands: Stands | None,
    block: int,
) -> Narrowed:
    """One layer with `weight`, in the first of two `groups`, cut to `kept`, now in the second of them."""
    out, into = (1, 0) if layer.kind is Kind.CONV_TRANSPOSE else (0, 1)
    outputs = kept.get(out, torch.arange(weight.shape[out]))
    inputs = kept.get(into, torch.arange(weight.shape[into]))
    target = weight.index_select(out, outputs)
    width = weight.shape[into] // (groups[0] if into == 0 else 1)  # inputs of a group
    if groups[1] < groups[0]:  # whole groups went, with their inputs
        of_group = weight.shape[0] // groups[0]  # rows of dim 0, outputs or inputs
        left = (kept[0] // of_group).unique()
        channels = left[:, None] * width + torch.arange(width)
        target = target.index_select(into, inputs) if into == 0 else target
        return Narrowed(
            target, torch.eye(width, dtype=torch.float64).expand(groups[1], -1, -1), channels.flatten()
        )
    stands = stands.first(width) if stands else Stands.of(inputs[inputs < width], width)
    return Narrowed(target, stands.matrix(block).expand(groups[1], -1, -1), None, block)


@dataclass(frozen=True)
class Stands:
    """For each of C0 inputs that a layer had, the one that now stands for it, and how often it counts."""

    place: Tensor  # (C0,) int64, among the inputs that are left; -1 where nothing does
    factor: Tensor  # (C0,) float64

    @classmethod
    def of(cls, kept: Tensor, count: int) -> Stands:
        """Each index that is kept stands for itself, nothing for the others."""
        place = torch.full((count,), -1)
        place[kept] = torch.arange(len(kept))
        return cls(place, torch.ones(count, dtype=torch.float64))

    def first(self, count: int) -> Stands:
        """Of the first inputs: those of one group, where every group loses the same."""
        return Stands(self.place[:count], self.factor[:count])

    def matrix(self, block: int) -> Tensor:
        """T0 (C0 / block, C / block) float64."""
        place, factor = self.place[::block], self.factor[::block]
        told = torch.zeros(len(place), int(self.place.max()) // block + 1, dtype=torch.float64)
        there = torch.nonzero(place >= 0).flatten()
        told[there, place[there] // block] = factor[there]
        return told


def groups_of(module: fx.GraphModule, layer: Layer) -> int:
    node = next(node for node in module.graph.nodes if node.name == layer.consumers[0])
    return int(arguments(node).get("groups", 1))
