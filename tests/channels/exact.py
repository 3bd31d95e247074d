"""What exact removal means: the cut graph computes what the whole one does if nothing reads the channels that went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from hashcompile.capture import Captured, capture
from hashcompile.core.graph import CompressedGraph, check, flat_copy, replace_tensor, tensors
from hashcompile.core.kept import Kept
from hashcompile.core.layers import attribute
from hashcompile.passes.channels import ChannelGroups, Role, find_groups, remove

EXACT = 1e-9  # float64: sums of the same numbers in another order, through hundreds of layers


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """`model` in float64 and evaluation mode, no parameter constant: a norm of ones and zeros would hide mistakes."""
    random = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=random)
            elif (
                tensor.is_floating_point()
                and tensor.numel() > 1
                and bool((tensor == tensor.flatten()[0]).all())
            ):
                tensor += 0.3 * torch.randn(tensor.shape, generator=random, dtype=tensor.dtype)
    return model


def captured(model: nn.Module, *inputs: Tensor) -> Captured:
    doubled = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    return capture(randomised(model), doubled)


def at_random(share: float, seed: int, channels: ChannelGroups) -> tuple[Tensor, ...]:
    """About `share` of the units of every group."""
    random = torch.Generator().manual_seed(seed)
    keeper = channels.keeper()
    for position, group in enumerate(channels.groups):
        wanted = round(share * group.count)
        for unit in torch.randperm(group.count, generator=random).tolist():
            wanted -= wanted > 0 and keeper.take(position, unit)
    return keeper.removed


def silenced(
    graph: CompressedGraph, channels: ChannelGroups, removed: Sequence[Tensor], garbage: bool
) -> CompressedGraph:
    """A copy of the whole graph in which the slices that read removed units are zero.

    garbage: their producers and followers hold random numbers; else zeros too.
    """
    twin = flat_copy(graph)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for role in (
            Role.FOLLOWER,
            Role.PRODUCER,
            Role.FACTOR,
            Role.CONSUMER,
        ):  # what must be zero comes last
            for group, mask in zip(channels.groups, removed, strict=True):
                for axis in group.of_role(role):
                    tensor: Tensor = attribute(twin, axis.parameter).detach()
                    indices = torch.nonzero((axis.unit >= 0) & mask[axis.unit]).flatten()
                    shape = [*tensor.shape[: axis.dim], len(indices), *tensor.shape[axis.dim + 1 :]]
                    noise = torch.rand(shape, generator=random, dtype=tensor.dtype) + 0.1
                    value = (
                        noise
                        if garbage and role in (Role.FOLLOWER, Role.PRODUCER)
                        else torch.zeros_like(noise)
                    )
                    replace_tensor(twin, axis.parameter, tensor.index_copy(axis.dim, indices, value))
    return twin


def batches(example: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """The example, and one with one sample more."""
    return [
        tuple(example),
        tuple(
            torch.cat([x, x[:1] / 2 if x.is_floating_point() else x[:1]]) if x.ndim else x for x in example
        ),
    ]


def difference(got: Any, wanted: Any) -> float:
    pairs = zip(pytree.tree_leaves(got), pytree.tree_leaves(wanted), strict=True)
    errors = [(a - b).norm() / b.norm().clamp_min(1e-300) for a, b in pairs if isinstance(a, Tensor)]
    return float(torch.stack(errors).max()) if errors else 0.0  # NaN, where there is one


class Removal(NamedTuple):
    error: float  # the largest relative one against both silenced graphs, at two batch sizes
    lost: float  # share of the parameters
    kept: Kept


def removal(
    whole: Captured, choose: Callable[[ChannelGroups], Sequence[Tensor]], inside_heads: bool = False
) -> Removal:
    """Remove the units that `choose` marks. At most two copies of the graph exist at a time."""
    graph = whole.graph
    channels = find_groups(graph, whole.example, inside_heads)
    removed = choose(channels)
    before = dict(tensors(graph))
    zeros, garbage = (outputs(silenced(graph, channels, removed, each), whole) for each in (False, True))
    # zeros in a weight that is divided by its own norm are no reference: garbage alone is
    wanted = [zeros, garbage] if finite(zeros) else [garbage]
    size = sum(parameter.numel() for parameter in graph.parameters())
    kept = remove(channels, removed)
    check(graph)
    assert kept.keys() == before.keys()
    for name, tensor in dict(tensors(graph)).items():
        if name in before:
            assert torch.equal(sliced(before[name], kept[name]), tensor), name
    got = outputs(graph, whole)
    errors = torch.tensor([difference(a, b) for twin in wanted for a, b in zip(got, twin, strict=True)])
    return Removal(
        float(errors.max()), 1 - sum(parameter.numel() for parameter in graph.parameters()) / size, kept
    )


@torch.no_grad()
def outputs(graph: CompressedGraph, whole: Captured) -> list[Any]:
    """At two batch sizes."""
    return [graph(*inputs) for inputs in batches(whole.example)]


def finite(values: Any) -> bool:
    return all(bool(each.isfinite().all()) for each in pytree.tree_leaves(values) if isinstance(each, Tensor))


def sliced(tensor: Tensor, kept: dict[int, Tensor]) -> Tensor:
    for dim, indices in kept.items():
        tensor = tensor.index_select(dim, indices)
    return tensor
