"""The layers that are to compute with other weights, one after another, each behind those before it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from hashcompile.calibrate import source_key, statistics
from hashcompile.core.graph import CompressedGraph, flat_copy, replace_tensor
from hashcompile.core.layers import Layer, attribute
from hashcompile.core.method import Scope, Statistics
from hashcompile.core.sweep import walk
from hashcompile.layer_task import LayerTask, outcome, settle, task_of
from hashcompile.output_error import output_error
from hashcompile.several_uses import joined, tied_statistics


@dataclass(frozen=True)
class Turn:
    """One layer's turn: what it should compute, and the way to have it compute that with other rows."""

    node: fx.Node  # its first reader
    task: LayerTask
    uses: Sequence[Statistics] = ()  # of a weight with several

    @property
    def layer(self) -> Layer:
        return self.task.layer

    def error(self, rows: Tensor) -> float:
        """Relative, of the outputs, if the layer computed with `rows: (N, K)`; of several uses, that of the worst."""
        if self.uses:
            before = self.layer.view.rows(self.task.original)
            return max(output_error(before, rows, use) for use in self.uses)
        return outcome(self.task, rows)[0]

    def take(self, graph: CompressedGraph, rows: Tensor) -> float:
        """Let the layer compute with `rows: (N, K)`, all of them, until the graph is rewired; the error."""
        view, dtype = self.layer.view, self.task.original.dtype
        replace_tensor(graph, self.layer.parameter, view.weight(rows).to(dtype).contiguous())
        return self.error(rows) if self.uses else settle(graph, self.task, rows)


def turns(scope: Scope, layers: Collection[Layer]) -> Iterator[Turn]:
    """In the order in which they run."""
    graph, original = scope.graph, flat_copy(scope.graph)
    if not scope.batches:
        first = {node.name: node for node in graph.graph.nodes}
        for layer in layers:
            node = first[layer.consumers[0]]
            yield Turn(node, task_of(graph, node, layer, Statistics(0)))
        return
    tied = tied_statistics(original, layers, scope.batches)
    todo = {layer.consumers[0]: layer for layer in layers}
    latest: dict[Any, Statistics] = {}
    pairs = zip(walk(graph, scope.batches), walk(original, scope.batches), strict=True)
    for (node, inputs), (_, before) in pairs:
        if node.name not in todo:
            continue
        layer = todo[node.name]
        if uses := tied.get(layer.parameter):
            weight = attribute(graph, layer.parameter).detach()
            known = joined(layer.view.rows(weight), uses)
            yield Turn(node, LayerTask(layer, weight, weight, known, known, None), uses)
            continue
        key = source_key(node, layer)
        if key not in latest:
            latest = {key: statistics(node, layer, inputs, before)}
        yield Turn(node, task_of(graph, node, layer, latest[key]))
