"""Remove channels: every shape is known before anything changes, then literals, parameters and metadata follow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from hashcompile.core.errors import GraphError
from hashcompile.core.graph import CompressedGraph, remove_dead, tensors
from hashcompile.core.kept import Kept
from hashcompile.core.layers import holder_of
from hashcompile.core.undecoded import Undecoded
from hashcompile.passes.channels.groups import ChannelGroups
from hashcompile.passes.channels.literals import REWRITES, Cut
from hashcompile.passes.channels.parameters import Held


def remove(channels: ChannelGroups, removed: Sequence[Tensor]) -> Kept:
    """Remove units from the graph that `channels` was found in, which then no longer describes it.

    removed: for each group, (count,) bool.

    Returns the kept indices of every parameter and buffer, for each dim that carries channels. Raises GraphError where
    a tensor would be left empty: a `Keeper` takes no such unit.
    """
    graph = channels.graph
    gone = torch.zeros(len(channels.resolved.root), dtype=torch.bool)
    for group, mask in zip(channels.groups, removed, strict=True):
        gone[group.classes[mask]] = True
    held = channels.trace.parameters.by_name
    kept = {name: kept_of(channels, held.get(name), gone) for name, _ in tensors(graph)}
    if not bool(gone.any()):
        return kept
    cut = Cut(channels, gone)
    for node in list(graph.graph.nodes):
        if node.op == "call_function":
            cut.follow(node)
            rewrite = REWRITES.get(getattr(node.target, "overloadpacket", node.target))
            if rewrite is not None and cut.touches(node):
                rewrite(cut, node)
    for each in channels.trace.parameters.by_memory.values():
        slice_tensor(graph, each, kept[each.names[0]])
    remove_dead(graph)
    refresh(graph)
    return kept


def kept_of(channels: ChannelGroups, held: Held | None, gone: Tensor) -> dict[int, Tensor]:
    """The kept indices of one tensor, for each dim that carries channels."""
    if held is None:
        return {}
    found = {dim: ~gone[channels.resolved.of(labels)] for dim, labels in held.dims.items()}
    if held.elements is not None and held.elements.numel():
        found |= {dim: torch.ones(size, dtype=torch.bool) for dim, size in enumerate(held.tensor.shape)}
        layout = channels.resolved.layout(held.elements)
        if layout.dim is not None:
            found[layout.dim] = ~gone[layout.classes]
    for dim, mask in found.items():
        if mask.numel() and not bool(mask.any()):
            raise GraphError(f"{held.names[0]} would be left without entries in dim {dim}")
    return {dim: torch.nonzero(found[dim]).flatten() for dim in sorted(found)}


def slice_tensor(graph: CompressedGraph, held: Held, kept: dict[int, Tensor]) -> None:
    """Cut one tensor, under all its names."""
    value = held.tensor.detach()
    for dim, indices in kept.items():
        if len(indices) < value.size(dim):
            value = value.index_select(dim, indices)
    if value.shape == held.tensor.shape:
        return
    is_parameter = isinstance(held.tensor, nn.Parameter)
    new = nn.Parameter(value, held.tensor.requires_grad) if is_parameter else value
    for name in held.names:
        setattr(*holder_of(graph, name), new)


class Metadata(Undecoded, FakeTensorProp):
    """Writes what every node would give into its metadata."""


def refresh(graph: CompressedGraph) -> None:
    """The metadata of every node, as a new capture would have it: symbolic sizes stay symbolic."""
    inputs = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
    mode = next(value.fake_mode for value in inputs if hasattr(value, "fake_mode"))
    # by PyTorch's own decompositions, as in a capture: kernels of recurrent layers know no symbolic size
    with torch.no_grad(), mode, enable_python_dispatcher():
        Metadata(graph, mode).run(*inputs, enable_io_processing=False)
