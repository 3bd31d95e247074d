"""Remove units, leave others in their place, and correct what comes behind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hashcompile.core.graph import CompressedGraph, flat_copy, replace_tensor
from hashcompile.core.kept import Kept, Refusal
from hashcompile.core.layers import layers
from hashcompile.core.method import Outcome, Scope
from hashcompile.core.reshaping import Uncorrected
from hashcompile.correct import Stands, correct, narrowed_by, unfoldable
from hashcompile.passes.channels.groups import Axis, ChannelGroups, Keeper
from hashcompile.passes.channels.parameters import Role
from hashcompile.passes.channels.slices import places
from hashcompile.passes.channels.surgery import remove
from hashcompile.reconstruct import Correction, Narrowed, narrow


@dataclass(frozen=True)
class Merged:
    """What became of the U units of a group."""

    into: Tensor  # (U,) int64, the unit that now stands for each one; itself, where it stays as it was
    factor: Tensor  # (U,) float64, how often it counts


@dataclass(frozen=True)
class Merges:
    """Groups whose units were merged, by position; and what their parameters hold instead, at full size."""

    groups: Mapping[int, Merged]
    tensors: Mapping[str, Tensor]


def carry_out(
    scope: Scope,
    channels: ChannelGroups,
    keeper: Keeper,
    how: Correction | None,
    merges: Merges | None = None,
) -> Outcome:
    """What is left of every tensor, and what the correction did to each layer; without calibration data nothing."""
    graph, original = scope.graph, flat_copy(scope.graph)
    kept = remove(channels, keeper.removed)
    if merges is None and not (how and scope.batches):
        return Outcome(kept)
    stands = stands_of(channels, merges.groups, kept) if merges else {}
    blocks = blocks_of(channels)
    was = narrowed_by(graph, original, kept, merges.tensors if merges else {}, stands, blocks)
    if merges:
        put(graph, merges.tensors, kept, was)
    if not how or not scope.batches:
        return Outcome(kept)
    corrected = correct(graph, original, was, scope.batches, how)
    return Outcome(
        kept,
        corrected=tuple(corrected),
        uncorrected=tuple(dict.fromkeys(uncorrected(graph, channels, keeper))),
    )


def uncorrected(graph: CompressedGraph, channels: ChannelGroups, keeper: Keeper) -> Iterator[Uncorrected]:
    """The weights that lost inputs and cannot be rewritten."""
    known = {layer.parameter: layer for layer in layers(graph)}
    for group, removed in zip(channels.groups, keeper.removed, strict=True):
        for axis in group.of_role(Role.CONSUMER):
            why = unfoldable(known.get(axis.parameter))
            if why and bool(removed[axis.unit[axis.unit >= 0]].any()):
                yield Uncorrected(axis.parameter.removesuffix(".weight"), why)


def fixed_in(scope: Scope) -> set[str]:
    """The layers that are to stay as they are, and so are groups to which one of them belongs."""
    return {layer.name for layer in layers(scope.graph)} - scope.layers


def refused_in(scope: Scope, channels: ChannelGroups) -> list[Refusal]:
    """Why channels of the layers in scope stay, whatever a method would like to do with them."""
    fixed = fixed_in(scope)
    found = [refusal for refusal in channels.refused if refusal.layer in scope.layers]
    for group in channels.groups:
        outside = next((layer for layer in group.layers if layer in fixed), None)
        for axis in group.of_role(Role.PRODUCER) if outside else ():
            if (layer := axis.parameter.removesuffix(".weight")) in scope.layers:
                reason = f"it shares them with {outside}, which is to stay as it is"
                found.append(Refusal(layer, group.count, len(axis.unit), reason))
    return found


def untold(graph: CompressedGraph, channels: ChannelGroups) -> dict[int, list[Refusal]]:
    """The groups, by position, of which no unit can stand for another: a weight that reads them stays."""
    known = {layer.parameter: layer for layer in layers(graph)}
    found: dict[int, list[Refusal]] = {}
    for position, group in enumerate(channels.groups):
        reasons = (unfoldable(known.get(axis.parameter)) for axis in group.of_role(Role.CONSUMER))
        if why := next(filter(None, reasons), None):
            found[position] = [Refusal(layer, group.count, group.count, why) for layer in group.layers]
    return found


def blocks_of(channels: ChannelGroups) -> dict[str, int]:
    """For every weight that reads units, how many consecutive inputs of it always belong to the same one."""
    found: dict[str, int] = {}
    for group in channels.groups:
        for axis in group.of_role(Role.CONSUMER):
            edges = torch.nonzero(axis.unit[1:] != axis.unit[:-1]).flatten() + 1
            before = found.get(axis.parameter, len(axis.unit))
            found[axis.parameter] = math.gcd(before, *edges.tolist())
    return found


def stands_of(channels: ChannelGroups, groups: Mapping[int, Merged], kept: Kept) -> dict[str, Stands]:
    """For every weight that reads merged units, what stands for each of its inputs."""
    found: dict[str, Stands] = {}
    for position, merged in groups.items():
        group = channels.groups[position]
        for axis in group.of_role(Role.CONSUMER):
            before = found.get(axis.parameter) or Stands.of(kept[axis.parameter][axis.dim], len(axis.unit))
            found[axis.parameter] = overlay(before, axis, merged)
    return found


def overlay(stands: Stands, axis: Axis, merged: Merged) -> Stands:
    """`stands`, in which the inputs of removed units are represented by those of the unit that they went into."""
    where = places(axis, len(merged.into))
    mine = where >= 0
    place, factor = stands.place.clone(), stands.factor.clone()
    place[where[mine]] = stands.place[where[merged.into][mine]]
    factor[where[mine]] = merged.factor[:, None].expand(where.shape)[mine]
    return Stands(place, factor)


def put(
    graph: CompressedGraph, tensors: Mapping[str, Tensor], kept: Kept, was: Mapping[str, Narrowed]
) -> None:
    """Representatives in the place of what they are made of, and columns summed."""
    for name, value in tensors.items():
        for dim, indices in kept[name].items():
            value = value.index_select(dim, indices)
        replace_tensor(graph, name, value)
    for layer in layers(graph):
        if (one := was.get(layer.parameter)) is not None and one.channels is None:
            replace_tensor(graph, layer.parameter, narrow(one.weight, layer, one.inputs))


def same_kind(axes: Sequence[Axis], count: int) -> Tensor:
    """(U, U) bool: which units have the same number of entries in every tensor, so that one can replace the other."""
    sizes = torch.stack([torch.bincount(axis.unit[axis.unit >= 0], minlength=count) for axis in axes])
    return (sizes[:, :, None] == sizes[:, None, :]).all(0)
