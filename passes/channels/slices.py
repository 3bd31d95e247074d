"""The slices of a tensor that belong to the units of a group, one row a unit."""

from __future__ import annotations

import torch
from torch import Tensor

from hashcompile.passes.channels.groups import Axis


def places(axis: Axis, count: int) -> Tensor:
    """(U, P) int64: the indices of each of `count` units along the axis, in order; -1 where a unit has fewer."""
    owned = torch.nonzero(axis.unit >= 0).flatten()
    by_unit = owned[axis.unit[owned].argsort(stable=True)]
    sizes = torch.bincount(axis.unit[owned], minlength=count)
    first = sizes.cumsum(0) - sizes
    step = torch.arange(int(sizes.max()) if count else 0)
    at = (first[:, None] + step).clamp_max(max(0, len(by_unit) - 1))
    return torch.where(step < sizes[:, None], by_unit[at] if len(by_unit) else at, -1)


def rows_at(values: Tensor, where: Tensor, dim: int = 0) -> Tensor:
    """(U, P, ...): what `values` holds along `dim` at `where: (U, P)`; zeros at -1."""
    moved = values.movedim(dim, 0)
    picked = moved[where.clamp_min(0).flatten()].reshape(*where.shape, *moved.shape[1:])
    missing = (where < 0).reshape(*where.shape, *[1] * (moved.ndim - 1))
    return picked.masked_fill(missing, 0) if bool(missing.any()) else picked


def slices(tensor: Tensor, axis: Axis, count: int) -> Tensor:
    """(U, K): the slices of each unit, flattened; of fewer entries, where a unit has fewer, filled up with zeros."""
    return rows_at(tensor.detach(), places(axis, count), axis.dim).flatten(1)
