"""Which labels are one, once everything is known: a fixpoint, in which classes only grow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from hashcompile.core.naming import named
from hashcompile.passes.channels.components import components
from hashcompile.passes.channels.labels import Labels, core
from hashcompile.passes.channels.trace import Trace


@dataclass(frozen=True)
class Layout:
    """Where the classes of a tensor lie: along one dim, or `dim` is None and all of it is of one class."""

    dim: int | None
    classes: Tensor  # (size of dim,) int64, or (1,)


@dataclass(frozen=True)
class Resolved:
    """The classes of a traced graph."""

    root: Tensor  # (labels + 1,) int64: the class of every label; the last entry is that of no label, -1
    reasons: dict[int, str]  # class -> why it is never to be removed

    def of(self, labels: Tensor) -> Tensor:
        return self.root[labels]

    def layout(self, labels: Tensor) -> Layout:
        small = core(self.of(core(labels)))
        dims = [dim for dim, size in enumerate(small.shape) if size > 1]
        assert len(dims) < 2, "a fixpoint leaves one dim"
        return Layout(dims[0] if dims else None, small.reshape(-1))


def resolve(trace: Trace) -> Resolved:
    """The classes of all labels. Every tensor's classes lie along one dim of it: what goes is whole slices."""
    labels = trace.labels
    root = torch.arange(labels.count)
    tensors = [(core(each), what) for each, what in all_labels(trace)]
    while True:
        root = components(root, torch.cat([*labels.edges, torch.empty(2, 0, dtype=torch.int64)], 1))
        labels.edges.clear()
        table = torch.cat([root, torch.tensor([-1])])
        merge_meetings(labels, table)
        tensors = [(core(table[each]), what) for each, what in tensors]
        tensors = [(each, what) for each, what in tensors if max(each.shape, default=1) > 1]
        if not labels.edges:
            for each, what in tensors:
                labels.where = f"the shape of {what if isinstance(what, str) else named(what)}"
                rectangular(labels, each)
        if not labels.edges:
            break
    pin_meetings(labels, table)
    pin_rigid(labels, table)
    reasons: dict[int, str] = {}
    for pinned, why in labels.pins:
        for each in table[pinned].unique().tolist():
            reasons.setdefault(each, why)
    return Resolved(table, reasons)


def all_labels(trace: Trace) -> list[tuple[Tensor, fx.Node | str]]:
    """The labels of every value, and of every parameter that is labelled element by element; and whose they are."""
    found: list[tuple[Any, fx.Node | str]] = []
    for node, given in trace.env.items():
        found += [(labels, node) for labels in pytree.tree_leaves(given)]
    found += [(held.elements, held.names[0]) for held in trace.parameters.by_memory.values()]
    return [(labels, what) for labels, what in found if isinstance(labels, Tensor) and labels.numel()]


def partners(pairs: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of every class that is broadcast, the smallest and the largest class that it meets."""
    spread, inverse = table[pairs[0]].unique(return_inverse=True)
    met = table[pairs[1]]
    least = torch.full_like(spread, torch.iinfo(torch.int64).max).scatter_reduce(0, inverse, met, "amin")
    most = torch.full_like(spread, -1).scatter_reduce(0, inverse, met, "amax")
    return spread, least, most


def merge_meetings(labels: Labels, table: Tensor) -> None:
    """A class that is broadcast over one other class is that class."""
    for meeting in labels.meetings:
        spread, least, most = partners(meeting.pairs, table)
        one = (least == most) & (spread != least)
        if bool(one.any()):
            labels.edges.append(torch.stack([spread[one], least[one]]))


def pin_meetings(labels: Labels, table: Tensor) -> None:
    """A class that is broadcast over many others stays, and so does what lies along a dim of one operand alone."""
    for meeting in labels.meetings:
        spread, least, most = partners(meeting.pairs, table)
        labels.pin(spread[least != most], meeting.why)
        operands = [core(table[each]) for each in meeting.operands]
        for dim in meeting.dims:
            changing = [each for each in operands if each.size(dim) > 1]
            if not (len(changing) == 2 and torch.equal(*changing)):
                for each in changing:
                    labels.pin(each, meeting.why)


def pin_rigid(labels: Labels, table: Tensor) -> None:
    """Classes that lie along a dim in which a value without channels has its real size stay."""
    for rigid in labels.rigid:
        classes = table[rigid.labels]
        if any(core(classes).size(dim) > 1 for dim in rigid.dims):
            labels.pin(classes, rigid.why)


def rectangular(labels: Labels, classes: Tensor) -> None:
    """Unify along all dims of a tensor but the one with most classes, so that whole slices go."""
    dims = [dim for dim, size in enumerate(classes.shape) if size > 1]
    if len(dims) > 1:
        counts = {dim: len(across(classes, dim).unique()) for dim in dims}
        best = max(dims, key=counts.__getitem__)
        labels.reduce(classes, [dim for dim in dims if dim != best])


def across(classes: Tensor, dim: int) -> Tensor:
    """The classes along `dim` where all other indices are 0."""
    return classes[tuple(slice(None) if each == dim else 0 for each in range(classes.ndim))]


def nodes_of(trace: Trace, resolved: Resolved) -> dict[fx.Node, list[Layout | None]]:
    """The layouts of every node's values: one, or as many as it returns."""
    found: dict[fx.Node, list[Layout | None]] = {}
    for node, labels in trace.env.items():
        each = labels if isinstance(labels, list) else [labels]
        found[node] = [None if one is None or not one.numel() else resolved.layout(one) for one in each]
    return found
