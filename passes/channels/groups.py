"""Channel groups: which slices of which parameters stand or fall together.

    channels = find_groups(graph, example)            # analysis; the graph stays as it is
    for group in channels.groups:                      # layers that share channels
        group.count                                    # removable units: a channel, a head, a group of a convolution
        for axis in group.axes:                        # every dim of every parameter that carries them
            axis.parameter, axis.dim, axis.role        # e.g. "layer1.0.conv1.weight", 0, Role.PRODUCER
            axis.unit                                  # (size of dim,) int64: whose slice each index is; -1 of none
    keeper = channels.keeper()                         # says which units may still go
    keeper.take(0, 5)                                  # unit 5 of group 0: False if a tensor would be emptied
    kept = remove(channels, keeper.removed)            # surgery.py: rewrites the graph, once

A unit may go if the input slices that read it (`Role.CONSUMER`) are zero: then the graph without it computes the same,
whatever its producers and followers held. Where a method first *moves* what a unit did to others, it changes consumer
slices of `graph`, and removes it afterwards; the analysis stays valid as long as shapes do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from hashcompile.core.graph import CompressedGraph
from hashcompile.core.kept import Refusal
from hashcompile.passes.channels.components import components
from hashcompile.passes.channels.parameters import Role
from hashcompile.passes.channels.resolve import Layout, Resolved, nodes_of, resolve
from hashcompile.passes.channels.rules import rule_of
from hashcompile.passes.channels.trace import Trace


@dataclass(frozen=True, eq=False)
class Axis:
    """One dim of one parameter or buffer, whose indices belong to the units of a group."""

    parameter: str
    dim: int
    role: Role
    unit: Tensor  # (size of dim,) int64

    def indices(self, unit: int) -> Tensor:
        """The indices of one unit, in the order in which those of every other unit of its kind lie."""
        return torch.nonzero(self.unit == unit).flatten()


@dataclass(frozen=True, eq=False)
class Group:
    """Layers that share channels, and the units in which these can be removed."""

    layers: tuple[str, ...]  # the names of those whose outputs they are, as globs match them
    count: int
    axes: tuple[Axis, ...]
    classes: Tensor  # (count,) int64

    def of_role(self, role: Role) -> tuple[Axis, ...]:
        return tuple(axis for axis in self.axes if axis.role is role)


class Keeper:
    """Takes units one by one, as long as every tensor of the graph keeps a channel."""

    def __init__(self, groups: Sequence[Group], tensors: Sequence[Tensor]) -> None:
        self.removed = tuple(torch.zeros(group.count, dtype=torch.bool) for group in groups)
        self._classes = [group.classes.tolist() for group in groups]
        self._left = [len(classes) for classes in tensors]
        self._tensors_of: dict[int, list[int]] = {}
        for position, classes in enumerate(tensors):
            for each in classes.tolist():
                self._tensors_of.setdefault(each, []).append(position)

    def take(self, group: int, unit: int) -> bool:
        """Mark a unit for removal; False, and nothing changes, where a tensor would be left without channels."""
        tensors = self._tensors_of.get(self._classes[group][unit], [])
        if self.removed[group][unit] or any(self._left[each] == 1 for each in tensors):
            return False
        self._mark(group, unit, -1)
        return True

    def give_back(self, group: int, unit: int) -> None:
        """Keep a unit after all."""
        if self.removed[group][unit]:
            self._mark(group, unit, 1)

    def _mark(self, group: int, unit: int, change: int) -> None:
        self.removed[group][unit] = change < 0
        for each in self._tensors_of.get(self._classes[group][unit], []):
            self._left[each] += change


@dataclass(frozen=True, eq=False)
class ChannelGroups:
    """What `find_groups` found in a graph. It holds as long as no shape of the graph changes."""

    graph: CompressedGraph
    groups: tuple[Group, ...]
    refused: tuple[Refusal, ...]
    trace: Trace
    resolved: Resolved
    layouts: dict[fx.Node, list[Layout | None]]
    _tensors: tuple[Tensor, ...]  # the classes of each tensor that consists of removable ones

    def keeper(self) -> Keeper:
        return Keeper(self.groups, self._tensors)


def find_groups(graph: CompressedGraph, example: Sequence[Any], inside_heads: bool = False) -> ChannelGroups:
    """The channel groups of `graph`, in execution order.

    example: flat inputs, one for each placeholder; every symbolic size at least 2.
    inside_heads: the units of attention are not whole heads, but one entry of every head: of queries together with
        keys, and of values. One of the former may go if its slices of `Role.FACTOR`, which make the keys, are zero.
    """
    trace = Trace(graph, example, rule_of, inside_heads)
    resolved = resolve(trace)
    layouts = nodes_of(trace, resolved)
    reasons = dict(resolved.reasons)
    produced = producers(trace, resolved)
    vectors = unique_vectors(layouts, trace, resolved)
    whole = [int(classes[0]) for classes in vectors if len(classes) == 1]
    # the first that left one channel, rather than one that joined places of each channel
    bonds = sorted(trace.labels.bonds, key=lambda bond: len(bond[0]))
    mixed = {int(resolved.root[labels[0]]): why for labels, why in reversed(bonds) if len(labels)}
    for each in whole:
        reasons.setdefault(each, mixed.get(each, "a tensor has no other channels"))
    removable = torch.zeros(len(resolved.root), dtype=torch.bool)
    for _, classes in produced:
        removable[classes[classes >= 0]] = True
    removable[list(reasons)] = False
    unit_of = torch.full((len(resolved.root),), -1)
    groups = [group_of(trace, resolved, members, unit_of) for members in linked(produced, removable)]
    return ChannelGroups(
        graph,
        tuple(groups),
        tuple(refusals(produced, removable, reasons)),
        trace,
        resolved,
        layouts,
        tuple(classes for classes in vectors if bool(removable[classes].all())),
    )


def producers(trace: Trace, resolved: Resolved) -> list[tuple[str, Tensor]]:
    """(layer, classes of its outputs), for every dim of a weight along which channels are made."""
    found = []
    for held in trace.parameters.by_memory.values():
        for dim, roles in held.roles.items():
            if Role.PRODUCER in roles:
                found.append((held.names[0].removesuffix(".weight"), resolved.of(held.dims[dim])))
        if held.elements is not None and held.computes:
            layout = resolved.layout(held.elements)
            if layout.dim is not None:
                found.append((held.names[0].removesuffix(".weight"), layout.classes))
    return found


def unique_vectors(
    layouts: dict[fx.Node, list[Layout | None]], trace: Trace, resolved: Resolved
) -> list[Tensor]:
    """The set of classes of each tensor, every set once; tensors with a part that has no channels cannot be emptied."""
    found: dict[tuple[int, ...], Tensor] = {}
    vectors = [each.classes for values in layouts.values() for each in values if each is not None]
    for held in trace.parameters.by_memory.values():
        vectors += [resolved.of(labels) for labels in held.dims.values()]
        if held.elements is not None and held.elements.numel():
            vectors.append(resolved.layout(held.elements).classes)
    for vector in vectors:
        if vector.numel() and int(vector.min()) >= 0:
            classes = vector.unique()
            found.setdefault(tuple(classes.tolist()), classes)
    return list(found.values())


def linked(produced: Sequence[tuple[str, Tensor]], removable: Tensor) -> list[Tensor]:
    """The removable classes of each group: those are in one group that some layer produces together."""
    together = [classes[classes >= 0] for _, classes in produced]
    together = [classes[removable[classes]] for classes in together]
    edges = [torch.stack([classes[:-1], classes[1:]]) for classes in together]
    roots = components(
        torch.arange(len(removable)), torch.cat(edges, 1) if edges else torch.empty(2, 0).long()
    )
    members: dict[int, list[int]] = {}
    for classes in together:
        for root, each in zip(roots[classes].tolist(), classes.tolist(), strict=True):
            members.setdefault(root, []).append(each)
    return [torch.tensor(list(dict.fromkeys(classes))) for classes in members.values()]


def group_of(trace: Trace, resolved: Resolved, members: Tensor, unit_of: Tensor) -> Group:
    """The group of the classes `members`; `unit_of`: (labels + 1,) of -1, which is lent and comes back as it was."""
    unit_of[members] = torch.arange(len(members))
    axes: list[Axis] = []
    for held in trace.parameters.by_memory.values():
        for dim, labels in held.dims.items():
            unit = unit_of[resolved.of(labels)]
            if bool((unit >= 0).any()):
                axes += [Axis(held.names[0], dim, role, unit) for role in sorted(held.roles[dim])]
        if held.elements is not None and held.elements.numel():
            layout = resolved.layout(held.elements)
            unit = unit_of[layout.classes]
            if layout.dim is not None and bool((unit >= 0).any()):
                axes.append(Axis(held.names[0], layout.dim, held.element_role, unit))
    unit_of[members] = -1
    made = [axis.parameter for axis in axes if axis.role is Role.PRODUCER]
    return Group(tuple(name.removesuffix(".weight") for name in made), len(members), tuple(axes), members)


def refusals(
    produced: Sequence[tuple[str, Tensor]], removable: Tensor, reasons: dict[int, str]
) -> Iterable[Refusal]:
    for name, classes in produced:
        why: dict[str, int] = {}
        for each in classes.tolist():
            if each < 0 or not bool(removable[each]):
                reason = reasons.get(each, "it has no channels")
                why[reason] = why.get(reason, 0) + 1
        for reason, channels in why.items():
            yield Refusal(name, channels, len(classes), reason)
