"""The units of every group as the layers see them that read them: moments at these layers' inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, fx

from hashcompile.calibrate import moments
from hashcompile.core.layers import CONSUMERS, Kind, Layer, arguments, channel_dim, layers
from hashcompile.core.signature import Batch
from hashcompile.core.sweep import walk
from hashcompile.passes.channels.groups import Axis, Group
from hashcompile.passes.channels.parameters import Role
from hashcompile.passes.channels.slices import places, rows_at


@dataclass(frozen=True)
class Reading:
    """The U units of a group at the input of one layer; where a unit has several entries there, each is a sample."""

    parameter: str  # the layer's weight
    nodes: tuple[str, ...]  # that use it: all their samples together
    count: int  # samples
    gram: Tensor  # (U, U) float64, sum of products
    mean: Tensor  # (U,) float64
    there: Tensor  # (U,) bool, the units that the layer reads at all

    @property
    def energy(self) -> Tensor:
        """(U,) mean squares."""
        return self.gram.diagonal() / max(1, self.count)

    @property
    def centred(self) -> Tensor:
        """(U, U) gram of the units less their means."""
        return self.gram - self.count * self.mean[:, None] * self.mean

    def with_use(self, other: Reading) -> Reading:
        """The samples of another node that reads the same weight as well."""
        count = self.count + other.count
        mean = (self.count * self.mean + other.count * other.mean) / max(1, count)
        return replace(
            self, nodes=self.nodes + other.nodes, count=count, gram=self.gram + other.gram, mean=mean
        )


def readings(
    graph: fx.GraphModule, groups: Sequence[Group], batches: Sequence[Batch]
) -> tuple[tuple[Reading, ...], ...]:
    """For each group, one reading a layer, of all its uses; none where no linear layer or convolution reads a group."""
    wanted: dict[str, list[tuple[int, Axis]]] = {}
    for position, group in enumerate(groups):
        for axis in group.of_role(Role.CONSUMER):
            wanted.setdefault(axis.parameter, []).append((position, axis))
    by_node = {name: layer for layer in layers(graph) for name in layer.consumers}
    found: list[dict[str, Reading]] = [{} for _ in groups]
    for node, inputs in walk(graph, batches) if batches else ():
        layer = by_node.get(node.name)
        if layer is None or CONSUMERS[node.target][0] is Kind.EMBEDDING:
            continue
        for position, axis in wanted.get(layer.parameter, ()):
            one = reading(node, layer, axis, groups[position].count, inputs)
            before = found[position].get(layer.parameter)
            found[position][layer.parameter] = before.with_use(one) if before else one
    return tuple(tuple(each.values()) for each in found)


def reading(node: fx.Node, layer: Layer, axis: Axis, count: int, inputs: Sequence[Tensor]) -> Reading:
    where = places(axis, count)

    def units(x: Tensor, _: int) -> Tensor:
        return rows_at(lanes(x, node, layer), where).reshape(1, count, -1)

    known = moments(inputs, inputs, units)
    assert known.gram is not None and known.mean is not None
    return Reading(layer.parameter, (node.name,), known.count, known.gram[0], known.mean[0], where[:, 0] >= 0)


def lanes(x: Tensor, node: fx.Node, layer: Layer) -> Tensor:
    """The inputs of a layer as (C / groups, groups, samples): what each index along its weight's input dim meets."""
    channels = x.movedim(channel_dim(x, layer), 0).flatten(1)
    groups = int(arguments(node)["groups"]) if layer.kind is Kind.CONV else 1
    return channels.reshape(groups, len(channels) // groups, -1).movedim(1, 0)


def retold(x: Tensor, node: fx.Node, layer: Layer, change: Callable[[Tensor], Tensor]) -> Tensor:
    """`x` with its lanes changed."""
    channels = x.movedim(channel_dim(x, layer), 0)
    changed = change(lanes(x, node, layer)).movedim(0, 1).reshape(channels.shape)
    return changed.movedim(0, channel_dim(x, layer))
