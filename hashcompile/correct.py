"""What removed channels said, said by those that stay: a correction after any pruning or merging.

The reshaped graph and the original walk over the calibration data side by side, and stop in front of every layer. There
the inputs of both are known, behind all nonlinearities, and the layer is reconstructed (`reconstruct.py`): first those
that lost inputs, then whatever comes behind them, each on the inputs that the layers corrected before it really give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx

from hashcompile.core.graph import CompressedGraph
from hashcompile.core.kept import Kept
from hashcompile.core.layers import Kind, Layer, arguments, attribute, layers
from hashcompile.core.reshaping import Corrected
from hashcompile.core.signature import Batch
from hashcompile.core.sweep import walk
from hashcompile.reconstruct import Correction, Narrowed, reconstruct


def correct(
    graph: CompressedGraph,
    original: fx.GraphModule,
    narrowed: Mapping[str, Narrowed],
    batches: Sequence[Batch],
    how: Correction,
) -> list[Corrected]:
    """Correct the layers of `graph` in place, in execution order. A weight with several uses stays as it is.

    narrowed: for every layer, by parameter.
    """
    found = {layer.consumers[0]: layer for layer in layers(graph) if len(layer.consumers) == 1}
    before = Originals(original, batches)
    results = []
    for node, inputs in walk(graph, batches):
        layer = found.get(node.name)
        if layer is None or layer.parameter not in narrowed or layer.kind is Kind.EMBEDDING:
            continue
        was = narrowed[layer.parameter]
        old = was.read(before.inputs(layer.parameter), layer)
        if was.inputs.shape[1] > was.inputs.shape[2] or not all(map(torch.equal, inputs, old)):
            results.append(reconstruct(graph, node, layer, was, inputs, old, how))
    return results


class Originals:
    """The inputs of the original model's layers, by parameter, for a reader in about the same order."""

    def __init__(self, original: fx.GraphModule, batches: Sequence[Batch]) -> None:
        self._names = {
            layer.consumers[0]: layer.parameter for layer in layers(original) if len(layer.consumers) == 1
        }
        self._walk = walk(original, batches)
        self._passed: dict[str, list[Any]] = {}

    def inputs(self, parameter: str) -> list[Any]:
        while parameter not in self._passed:
            node, values = next(self._walk)
            if name := self._names.get(node.name):
                self._passed[name] = values
        return self._passed.pop(parameter)


def narrowed_by(
    graph: CompressedGraph,
    original: fx.GraphModule,
    kept: Kept,
    weights: Mapping[str, Tensor] = MappingProxyType({}),
    merged: Mapping[str, Stands] = MappingProxyType({}),
    blocks: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Narrowed]:
    """What became of the layers of `original`, now those of `graph`, by parameter. Embeddings read no channels.

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
        if old is None or not layer.consumers or layer.kind is Kind.EMBEDDING:
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
    if groups[1] < groups[0]:  # whole groups went, with their inputs
        each = weight.shape[0] // groups[0]
        left = (outputs // each).unique()
        channels = left[:, None] * weight.shape[1] + torch.arange(weight.shape[1])
        alone = Stands.of(inputs, weight.shape[1]).matrix(1)
        return Narrowed(target, alone.expand(groups[1], -1, -1), channels.flatten())
    width = weight.shape[into] // (groups[0] if layer.kind is Kind.CONV_TRANSPOSE else 1)
    stands = stands or Stands.of(inputs, width)
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
