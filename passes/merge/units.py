"""What the units of a group are told by: their weights, or their activations; one row a unit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from hashcompile.core.errors import WeightError
from hashcompile.core.layers import attribute
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
        parts = [slices(weight * way.gain(graph).view(shape), way.axis, count)]
        if way.axis.dim == 0:
            parts.append(slices(way.offset(graph), way.axis, count))
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


def energies(read: Sequence[Reading], count: int) -> Tensor:
    """(U,) float64: mean squares, relative to the group's in each layer that reads it; ones without data."""
    if not read:
        return torch.ones(count, dtype=torch.float64)
    total = torch.zeros(count, dtype=torch.float64)
    for each in read:
        mean = each.energy.mean()
        total += each.energy / mean if mean > 0 else each.energy
    return total
