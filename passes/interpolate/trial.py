"""What a model's outputs lose if the units of one group are told from some of them: measured, without any surgery.

The residual of the pivots is relative to what the layers that read a group make of it. What becomes of that at the
outputs depends on all that comes behind: an error in a branch is small beside the stream that it is added to, one
behind the last average over an image is not. So one width of every group is tried on some data, and the residuals are
scaled to what is seen there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from hashcompile.core.layers import CONSUMERS, layers
from hashcompile.core.parallel import deterministic_map
from hashcompile.core.signature import Batch
from hashcompile.passes.channels import Group, Role
from hashcompile.passes.channels.readings import Reading, retold
from hashcompile.passes.channels.slices import places, rows_at
from hashcompile.ridge import LeastSquares

Change = Callable[[Tensor], Tensor]


class Trial:
    """A graph, some batches, and the outputs that it has on them."""

    def __init__(self, graph: fx.GraphModule, batches: Sequence[Batch]) -> None:
        self._graph, self._batches = graph, batches
        self._layers = {name: layer for layer in layers(graph) for name in layer.consumers}
        self._nodes = {node.name: node for node in graph.graph.nodes}
        self._wanted = self._outputs({})

    def error(self, group: Group, read: Sequence[Reading], kept: Tensor) -> float:
        """|y - y'|^2 / |y|^2 of the outputs where all layers that read the group see what can be told from the units
        in `kept`: (k,)."""
        changes = {node: self._change(group, each, node, kept) for each in read for node in each.nodes}
        lost = whole = 0.0
        for got, wanted in zip(self._outputs(changes), self._wanted, strict=True):
            lost += float((got - wanted).square().sum())
            whole += float(wanted.square().sum())
        return lost / whole if whole > 0 else 0.0

    def _change(self, group: Group, seen: Reading, name: str, kept: Tensor) -> Change:
        """x -> T x + (I - T) mean, from one layer's inputs to what it is told of them."""
        axis = next(axis for axis in group.of_role(Role.CONSUMER) if axis.parameter == seen.parameter)
        where = places(axis, group.count)
        told = telling(seen, kept)
        rest = seen.mean - told @ seen.mean
        layer, node = self._layers[name], self._nodes[name]
        there = where >= 0

        def lanes_of(lanes: Tensor) -> Tensor:
            units = rows_at(lanes, where)
            said = torch.einsum("uv,v...->u...", told.to(lanes.dtype), units)
            said += rest.to(lanes.dtype).view(-1, *[1] * (said.ndim - 1))
            return lanes.index_copy(0, where[there], said[there])

        return lambda x: retold(x, node, layer, lanes_of)

    def _outputs(self, changes: Mapping[str, Change]) -> list[Tensor]:
        """Of all batches, those that are floats, float64."""

        def run(batch: Batch) -> list[Tensor]:
            with torch.no_grad():
                values = (
                    value.clone() for value in batch
                )  # an in-place operator must not write to the user's
                found = Changed(self._graph, changes).run(*values, enable_io_processing=False)
            leaves = pytree.tree_leaves(found)
            return [x.double() for x in leaves if isinstance(x, Tensor) and x.is_floating_point()]

        return [leaf for leaves in deterministic_map(run, self._batches) for leaf in leaves]


class Changed(fx.Interpreter):
    """Runs a graph in which some layers read other inputs."""

    def __init__(self, graph: fx.GraphModule, changes: Mapping[str, Change]) -> None:
        super().__init__(graph)
        self._changes = changes

    def run_node(self, n: fx.Node) -> Any:
        if (change := self._changes.get(n.name)) is None:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        place = 1 - CONSUMERS[n.target][1]
        changed = tuple(change(value) if i == place else value for i, value in enumerate(args))
        return self.call_function(n.target, changed, kwargs)


def telling(seen: Reading, kept: Tensor) -> Tensor:
    """T (U, U) with z ~ T z, which reads the units in `kept` alone, and leaves these as they are."""
    gram, mean = seen.gram, seen.mean
    eye = torch.eye(len(gram), dtype=torch.float64)
    found = torch.zeros_like(eye)
    if len(kept):
        system = LeastSquares(gram[kept][:, kept], gram[:, kept], gram, seen.count)
        found[:, kept] = system.about(seen.count, mean[kept], mean).solve(eye, eye[:, kept])
        found[kept] = eye[kept]
    return found
