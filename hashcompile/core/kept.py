"""Which indices of every tensor a model still has, and why no more went: the record of all structural passes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Kept = dict[str, dict[int, Tensor]]
# parameter or buffer -> {dim: (kept,) int64, rising indices into the tensor of the model that came first}. A dim that
# is not listed carries no channels, and is whole.


@dataclass(frozen=True)
class Refusal:
    """Channels that cannot be removed: outputs of a layer, how many of how many, and why."""

    layer: str
    channels: int
    of: int
    reason: str

    def __str__(self) -> str:
        part = "" if self.channels == self.of else f"{self.channels} of {self.of} channels: "
        return f"{part}{self.reason}"


def compose(first: Kept, then: Kept) -> Kept:
    """Indices into the first model's tensors, of what is left after both steps."""
    return {name: composed(dims, then.get(name, {})) for name, dims in first.items()} | {
        name: dims for name, dims in then.items() if name not in first
    }


def composed(first: Mapping[int, Tensor], then: Mapping[int, Tensor]) -> dict[int, Tensor]:
    joined = dict(first)
    for dim, indices in then.items():
        joined[dim] = first[dim][indices] if dim in first else indices
    return dict(sorted(joined.items()))


def stacked(parts: Sequence[tuple[Mapping[int, Tensor], Sequence[int]]]) -> dict[int, Tensor]:
    """Of a tensor whose rows are those of `parts`, (kept indices, shape) each: all rows that are left; and of every
    other dim what any of them has left.
    """
    found = {}
    for dim in sorted({dim for kept, _ in parts for dim in kept}):
        sizes = [shape[dim] for _, shape in parts]
        left = [kept.get(dim, torch.arange(size)) for (kept, _), size in zip(parts, sizes, strict=True)]
        starts = itertools.accumulate(sizes[:-1], initial=0) if dim == 0 else [0] * len(parts)
        found[dim] = torch.cat([each + start for each, start in zip(left, starts, strict=True)]).unique()
    return found


def describe(kept: Kept) -> dict[str, Any]:
    """As JSON values."""
    return {name: {str(dim): each.tolist() for dim, each in dims.items()} for name, dims in kept.items()}


def restore(description: Mapping[str, Any]) -> Kept:
    """Inverse of `describe`. Raises ValueError or TypeError for what cannot be indices."""
    return {
        str(name): {int(dim): torch.tensor(each, dtype=torch.int64) for dim, each in dims.items()}
        for name, dims in description.items()
    }
