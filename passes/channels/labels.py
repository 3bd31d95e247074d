"""Label tensors, and the few things that an operator can do to labels.

A label tensor has the shape of the value it stands for, and says of every element which channel it belongs to; -1 for
elements that belong to none. What carries one label goes or stays together, and **the value of what goes does not
matter**: only the input slice of a linear layer or a convolution may drop it (`consume`), every other operator passes
labels on or unifies them. So nothing has to be known of how an operator treats zeros.

Unification is collected here, and decided later (`resolve.py`): a label may still turn out to be another one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


def core(labels: Tensor) -> Tensor:
    """`labels` with extent 1 in every dim along which they do not change: what is stored of them."""
    for dim in range(labels.ndim):
        if labels.stride(dim) == 0 and labels.size(dim) > 1:
            labels = labels.narrow(dim, 0, 1)
    for dim in range(labels.ndim):
        if labels.size(dim) > 1:
            first = labels.narrow(dim, 0, 1)
            if bool((labels == first).all()):
                labels = first
    return labels


def unlabelled(shape: Iterable[int]) -> Tensor:
    """The labels of a value without channels, in the memory of one."""
    return torch.tensor(-1).expand(tuple(shape))


class Meeting(NamedTuple):
    """A broadcast operand's labels beside those of the other one, (2, E): one class if it meets one, else pinned.

    What lies along `dims`, in which both operands have their real size, can be cut only if it is the same of both.
    """

    pairs: Tensor
    operands: tuple[Tensor, Tensor]  # of one rank
    dims: tuple[int, ...]
    why: str


class Rigid(NamedTuple):
    """Labels that meet a value without channels of real size along `dims`: pinned if they still change along these."""

    labels: Tensor
    dims: tuple[int, ...]
    why: str


@dataclass
class Labels:
    """All labels of a graph, and what is known about them."""

    count: int = 0
    where: str = ""  # the node that is being looked at, for reasons
    edges: list[Tensor] = field(default_factory=list)  # (2, E): one class
    meetings: list[Meeting] = field(default_factory=list)
    rigid: list[Rigid] = field(default_factory=list)
    pins: list[tuple[Tensor, str]] = field(default_factory=list)  # never to be removed, and why
    bonds: list[tuple[Tensor, str]] = field(default_factory=list)  # unified along a dim, and by what

    def fresh(self, *shape: int) -> Tensor:
        """Labels that nothing else has."""
        size = math.prod(shape)
        labels = torch.arange(self.count, self.count + size).view(shape)
        self.count += size
        return labels

    def distinct(self, a: Tensor, b: Tensor) -> Tensor:
        """The pairs of labels (a[i], b[i]), each once, as (2, E)."""
        pairs = (a * self.count + b).unique()
        return torch.stack([pairs // self.count, pairs % self.count])

    def unify(self, a: Tensor, b: Tensor) -> None:
        """Element by element; an element without a channel pins the one it stands beside."""
        a, b = torch.broadcast_tensors(core(a), core(b))
        both = (a >= 0) & (b >= 0)
        apart = both & (a != b)
        if bool(apart.any()):
            self.edges.append(self.distinct(a[apart], b[apart]))
        if not bool(both.all()):
            self.pin(torch.maximum(a, b)[~both], f"{self.where} joins it to a value without channels")

    def pin(self, labels: Tensor, why: str) -> None:
        labels = core(labels)
        labels = labels[labels >= 0].unique()
        if labels.numel():
            self.pins.append((labels, why))

    def reduce(self, labels: Tensor, dims: Iterable[int]) -> Tensor:
        """Every result depends on all elements along `dims`, which are kept with extent 1."""
        dims = {dim % labels.ndim for dim in dims}
        small = core(labels)
        for dim in dims:
            if small.size(dim) > 1:
                top = small.amax(dim, keepdim=True)
                held = small >= 0
                self.edges.append(self.distinct(small[held], top.expand(small.shape)[held]))
                mixed = ~held.all(dim, keepdim=True) & (top >= 0)
                self.pin(top[mixed], f"{self.where} mixes it with values without channels")
                self.bonds.append((top[top >= 0].unique(), f"{self.where} mixes all of its channels"))
                small = top
        return small.expand([1 if dim in dims else size for dim, size in enumerate(labels.shape)])

    def join(self, *operands: Tensor, hard: bool = False) -> Tensor:
        """A pointwise operator with broadcasting. `hard`: a broadcast operand is one class with all that it meets."""
        labels = operands[0]
        for other in operands[1:]:
            labels = self._pair(labels, other, hard)
        return labels

    def _pair(self, a: Tensor, b: Tensor, hard: bool) -> Tensor:
        shape = torch.broadcast_shapes(a.shape, b.shape)
        a, b = (x.reshape((1,) * (len(shape) - x.ndim) + x.shape) for x in (a, b))
        small_a, small_b = core(a), core(b)
        real = tuple(d for d in range(len(shape)) if a.size(d) > 1 and b.size(d) > 1)
        for plain, small, other in ((a, small_a, small_b), (b, small_b, small_a)):
            dims = tuple(d for d in range(len(shape)) if plain.size(d) > 1 and other.size(d) > 1)
            if dims and bool((small < 0).any()):
                why = f"{self.where} reads it beside a value without channels, which cannot be cut"
                self.rigid.append(Rigid(other, dims, why))
        wide_a = any(a.size(d) == 1 and small_b.size(d) > 1 for d in range(len(shape)))
        wide_b = any(b.size(d) == 1 and small_a.size(d) > 1 for d in range(len(shape)))
        x, y = torch.broadcast_tensors(small_a, small_b)
        apart = (x >= 0) & (y >= 0) & (x != y)
        if bool(apart.any()):
            pairs = self.distinct(x[apart], y[apart])
            if hard or wide_a == wide_b:  # of one size, or an outer product
                self.edges.append(pairs)
            else:
                why = f"{self.where} spreads it over many channels"
                ordered = pairs if wide_a else pairs.flip(0)
                self.meetings.append(Meeting(ordered, (small_a, small_b), real, why))
        first, second = (y, x) if wide_a and not wide_b else (x, y)
        return first.where(first >= 0, second).expand(shape)

    def channels(self, labels: Tensor, dim: int) -> Tensor:
        """(C,): one label for each index of `dim`, the same everywhere else."""
        dim %= labels.ndim
        return self.reduce(labels, [d for d in range(labels.ndim) if d != dim]).reshape(-1)

    def consume(self, labels: Tensor, slices: Tensor) -> None:
        """A weight's input slices, (K,), read the channels (K,): what goes, goes with its slice."""
        held = labels >= 0
        self.edges.append(torch.stack([labels[held], slices[held]]))
        self.pin(slices[~held], "it reads an input of the model, or a constant")
