"""What the units of a group are told by: their weights, or their activations; one row a unit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, fx

from hashcompile.core.errors import WeightError
from hashcompile.core.layers import attribute
from hashcompile.passes.channels import Group, Role
from hashcompile.passes.channels.readings import Reading
from hashcompile.passes.channels.slices import slices
from hashcompile.passes.merge.made import Made


def by_weights(graph: fx.GraphModule, ways: Sequence[Made], count: int) -> Tensor:
    """(U, K) float64: weights and offsets over all layers that make the units, each layer divided by its root mean
    square so that it counts no more than another. Raises WeightError for values that are not finite.
    """
    rows = []
    for way in ways:
        weight = attribute(graph, way.axis.parameter).detach().double()
        shape = [-1 if dim == way.axis.dim else 1 for dim in range(weight.ndim)]
        offset = dataclasses.replace(way.axis, dim=0)
        parts = (
            slices(weight * way.gain(graph).view(shape), way.axis, count),
            slices(way.offset(graph), offset, count),
        )
        whole = torch.cat(parts, 1)
        if not bool(torch.isfinite(whole).all()):
            raise WeightError(
                f"parameter {way.axis.parameter!r}, or what normalises it, holds NaN or infinite values"
            )
        size = whole.square().mean().sqrt()
        rows.append(whole / size if size > 0 else whole)
    return torch.cat(rows, 1)


def by_activations(read: Sequence[Reading]) -> Tensor:
    """(U, U) float64 rows whose products are those of the activations, each layer that reads them counting alike."""
    gram = sum(
        each.gram / each.gram.diagonal().sum().clamp_min(torch.finfo(torch.float64).tiny) for each in read
    )
    assert isinstance(gram, Tensor)
    values, vectors = torch.linalg.eigh(gram)
    return vectors * values.clamp_min(0).sqrt()


def worths(graph: fx.GraphModule, group: Group, read: Sequence[Reading], rows: Tensor) -> Tensor:
    """(U,) float64: the squared size of what the layers that read a unit make of it, as a share of what they make of
    all units; the mean over these layers.

    Without data a unit is taken for as large as its weights, `rows: (U, K)`.
    """
    total = torch.zeros(group.count, dtype=torch.float64)
    sizes = {each.parameter: each.energy for each in read}
    for axis in group.of_role(Role.CONSUMER):
        columns = slices(attribute(graph, axis.parameter), axis, group.count).double().square().sum(1)
        mine = columns * sizes.get(axis.parameter, rows.square().sum(1))
        whole = mine.sum()
        total += mine / whole if whole > 0 else mine
    return total / max(1, len(group.of_role(Role.CONSUMER)))
