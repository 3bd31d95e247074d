"""Reading and writing at places, and finding them."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

aten = torch.ops.aten


def index(x: Tensor, indices: list[Tensor | None]) -> Tensor:
    """By tensors in some dims: their places are told by one number each, in the dims put in front and made one. The
    importer takes places from the end for others, and has other orders of dims.
    """
    places = [(dim, at) for dim, at in enumerate(indices) if at is not None]
    if any(at.dtype in (torch.bool, torch.uint8) for _, at in places):
        return NotImplemented
    dims = [dim for dim, _ in places]
    if adjacent(dims) and all(
        at.ndim and at.shape[1:] == (1,) * (dims[-1] - dim) for dim, at in places
    ):  # rows, columns of them, ...
        for dim, at in places:
            x = x.index_select(dim, from_front(at.flatten(), x.shape[dim]))
        return x
    order, first, number = numbered(x, places)
    found = x.permute(order).flatten(0, len(dims) - 1).index_select(0, number.flatten())
    found = found.reshape(*number.shape, *(x.shape[dim] for dim in order[len(dims) :]))
    return found.movedim(*reversed(dims_of(number, first)))


def unchecked_index(x: Tensor, indices: list[Tensor | None]) -> Tensor:
    return aten.index.Tensor(x, indices)


def index_put(x: Tensor, indices: list[Tensor | None], values: Tensor, accumulate: bool = False) -> Tensor:
    """At places, told by one number each: the importer reads values as if there were one for every place. Where a mask
    says so, the same values for all that it tells.
    """
    places = [(dim, at) for dim, at in enumerate(indices) if at is not None]
    if any(at.dtype in (torch.bool, torch.uint8) for _, at in places):
        return put_where(x, places, values, accumulate) if len(places) == 1 else NotImplemented
    order, first, number = numbered(x, places)
    rest = [x.shape[dim] for dim in order[len(places) :]]
    every = values.expand(*rest[:first], *number.shape, *rest[first:]).movedim(*dims_of(number, first))
    rows = functional.pad(x.permute(order).reshape(-1, prod(rest)), (0, 0, 0, 1))  # one for places outside
    parts = every.reshape(number.numel(), prod(rest))
    put = aten.scatter_add.default if accumulate else aten.scatter.src
    made = put(rows, 0, number.reshape(-1, 1).expand(parts.shape), parts)[:-1]
    made = made.reshape([x.shape[dim] for dim in order])
    return made.permute([order.index(dim) for dim in range(x.ndim)])


def put_where(x: Tensor, places: list[tuple[int, Tensor]], values: Tensor, accumulate: bool) -> Tensor:
    ((dim, mask),) = places
    behind = x.ndim - dim - mask.ndim
    if values.ndim > behind:
        return NotImplemented
    told = mask.to(torch.bool).reshape(*mask.shape, *[1] * behind)
    return torch.where(told, x + values if accumulate else values, x)


def numbered(x: Tensor, places: list[tuple[int, Tensor]]) -> tuple[list[int], int, Tensor]:
    """The dims of `x` with those of `places` in front; the dim from which on what lies at these has theirs; and their
    numbers in the dims in front, made one: the one behind the last for places outside of `x`.
    """
    dims = [dim for dim, _ in places]
    number: Any = 0
    outside: Any = False
    for dim, at in places:
        place = from_front(at, x.shape[dim])
        number = number * x.shape[dim] + place
        outside = outside | (place < 0) | (place >= x.shape[dim])
    number = number * (~outside).long() + outside.long() * prod(x.shape[dim] for dim in dims)
    first = dims[0] if adjacent(dims) else 0
    return [*dims, *(dim for dim in range(x.ndim) if dim not in dims)], first, number


def adjacent(dims: list[int]) -> bool:
    return dims[-1] - dims[0] < len(dims)


def dims_of(number: Tensor, first: int) -> tuple[list[int], list[int]]:
    """Those of `number` from `first` on, and in front."""
    return list(range(first, first + number.ndim)), list(range(number.ndim))


def from_front(places: Tensor, size: int) -> Tensor:
    """Places that may count from the end."""
    return torch.where(places < 0, places + size, places)


def argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    return first_extreme(x, aten.amax.default, dim, keepdim)


def argmin(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    return first_extreme(x, aten.amin.default, dim, keepdim)


def first_extreme(x: Tensor, extreme: Any, dim: int | None, keepdim: bool) -> Tensor:
    if not x.is_floating_point():
        return NotImplemented
    return first(x, extreme(x, list(range(x.ndim)) if dim is None else [dim], True), dim, keepdim)


def max_dim(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return extreme_and_place(x, x.amax(dim, True), dim, keepdim)


def min_dim(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return extreme_and_place(x, x.amin(dim, True), dim, keepdim)


def extreme_and_place(x: Tensor, value: Tensor, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    return value if keepdim else value.squeeze(dim), first(x, value, dim, keepdim)


def first(x: Tensor, value: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    """The first place of `value`, or of NaN: TVM by itself finds none for infinities and NaN, nor among bools."""
    found = x == value
    if x.is_floating_point():
        found = found | x.isnan()
    return found.to(torch.int8).argmax(dim, keepdim)


def kthvalue(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    found = [every.narrow(dim, k - 1, 1) for every in x.sort(dim)]
    values, indices = found if keepdim else (each.squeeze(dim) for each in found)
    return values, indices


def stable_sort(
    x: Tensor, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[Tensor, Tensor]:
    """TVM's is."""
    return aten.sort.default(x, dim, descending)
