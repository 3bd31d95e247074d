"""Operators that only move elements: they are run, on the labels."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import Tensor, fx

from hashcompile.core.layers import arguments
from hashcompile.passes.channels.labels import core
from hashcompile.passes.channels.rules.table import packets
from hashcompile.passes.channels.trace import Rule, Trace

aten = torch.ops.aten


def moved(trace: Trace, node: fx.Node) -> Any:
    """The operator itself on labels, with its sizes and indices as they were."""
    known = {each: trace.facts.values.get(each) for each in node.all_input_nodes if not trace.is_tensor(each)}

    def given(each: fx.Node) -> Any:
        labels = trace.of(each)
        return known.get(each) if labels is None else labels

    found = node.target(*fx.map_arg(node.args, given), **fx.map_arg(node.kwargs, given))  # type: ignore[operator]
    return list(found) if isinstance(found, (tuple, list)) else found


def windowed(trace: Trace, node: fx.Node) -> Any:
    """x.unfold(dim, size, step): windows along a dim are read by all that lies there."""
    given = arguments(node)
    labels, dim = trace.of(given["self"]), int(given["dimension"])
    mixed = trace.labels.reduce(labels, [dim]).expand(labels.shape)
    return mixed.unfold(dim, given["size"], given["step"])


def columns(trace: Trace, node: fx.Node) -> Tensor:
    """im2col, functional.unfold: (..., C, H, W) to (..., C * taps, L)."""
    given = arguments(node)
    channels = trace.labels.channels(trace.of(given["self"]), -3)
    return channels.repeat_interleave(math.prod(given["kernel_size"]))[:, None].expand(trace.shape(node))


def image(trace: Trace, node: fx.Node) -> Tensor:
    """col2im, functional.fold: (..., C * taps, L) to (..., C, H, W)."""
    given = arguments(node)
    taps = trace.labels.channels(trace.of(given["self"]), -2).view(-1, math.prod(given["kernel_size"]))
    return trace.labels.reduce(taps, [1])[..., None].expand(trace.shape(node))


def rolled(trace: Trace, node: fx.Node) -> Any:
    given = arguments(node)
    if not given["dims"] and len(trace.shape(node)) > 1:
        return trace.refuse(node, f"{trace.labels.where} moves it from sample to sample")
    return moved(trace, node)


def repeated(trace: Trace, node: fx.Node) -> Any:
    """repeat_interleave: each as often as the others; else all of them depend on how often each comes."""
    given = arguments(node)
    if "self" not in given:
        return trace.refuse(node, f"{trace.labels.where} counts by it")
    labels = trace.of(given["self"])
    if not trace.is_tensor(given["repeats"]):
        return labels.repeat_interleave(given["repeats"], given["dim"])
    dims = range(labels.ndim) if given["dim"] is None else [int(given["dim"])]
    return trace.labels.reduce(labels, dims).expand(trace.shape(node))


def size(trace: Trace, node: fx.Node) -> None:
    """Sizes, and assertions about them: channels may go, and `literals.py` tells what is true behind that."""


def reshaped(trace: Trace, node: fx.Node) -> Tensor:
    """view, reshape, expand ...: the shape is what the run said."""
    return trace.of(node.args[0]).reshape(trace.shape(node))


def expanded(trace: Trace, node: fx.Node) -> Tensor:
    return trace.of(node.args[0]).expand(trace.shape(node))


def item(trace: Trace, node: fx.Node) -> Any:
    values, position = node.args
    return trace.of(values)[position]


def joined(trace: Trace, node: fx.Node) -> Tensor:
    """cat: only as much of each part as its labels change."""
    given = arguments(node)
    parts = [labels for labels in trace.of(given["tensors"]) if labels.shape != (0,)]
    dim = int(given["dim"]) % parts[0].ndim
    small = [core(labels) for labels in parts]
    widest = [max(sizes) for sizes in zip(*(labels.shape for labels in small), strict=True)]
    cut = []
    for whole, labels in zip(parts, small, strict=True):
        cut.append(labels.expand([*widest[:dim], whole.size(dim), *widest[dim + 1 :]]))
    return torch.cat(cut, dim).expand(trace.shape(node))


def padded(trace: Trace, node: fx.Node) -> Tensor:
    """Zeros put beside channels are channels of their own; put around positions they belong to what they surround."""
    given = arguments(node)
    source, shape = trace.of(given["self"]), trace.shape(node)
    labels = core(source)
    constant = given.get("mode", "constant") == "constant"
    for place in range(len(given["pad"]) // 2):
        dim = source.ndim - 1 - place
        before, after = (int(amount) for amount in given["pad"][2 * place : 2 * place + 2])
        if labels.size(dim) == 1 or before == after == 0:
            continue
        if not constant or min(before, after) < 0:
            return trace.refuse(
                node, f"{trace.labels.where} pads its channels with other ones, or cuts them off"
            )
        other = [*labels.shape[:dim], 0, *labels.shape[dim + 1 :]]
        sides = []
        for amount in (before, after):
            other[dim] = amount
            sides.append(trace.labels.fresh(*other))
        labels = torch.cat([sides[0], labels, sides[1]], dim)
    return labels.expand(shape)


def indexed(trace: Trace, node: fx.Node) -> Any:
    """index: with whole numbers that are the same in every run, of one dim, if that dim has channels."""
    given = arguments(node)
    labels, indices = trace.of(given["self"]), given["indices"]
    values = [None if index is None else trace.facts.values.get(index) for index in indices]
    for index, value in zip(indices, values, strict=True):
        if index is not None and (value is None or not fixed(index)):
            return trace.refuse(node, f"{trace.labels.where} chooses by values that only a run can tell")
    dims = [dim for dim, value in enumerate(values) if value is not None]
    varying = [dim for dim in dims if core(labels).size(dim) > 1]
    only: Any = values[dims[0]] if len(dims) == 1 else None
    alone = only is not None and only.ndim == 1 and only.dtype != torch.bool
    if varying and not alone:
        labels = trace.labels.reduce(labels, varying).expand(labels.shape)
    return aten.index.Tensor(labels, values)


def selected(trace: Trace, node: fx.Node) -> Any:
    """index_select, with an index that is the same in every run."""
    given = arguments(node)
    if not fixed(given["index"]):
        return trace.refuse(node, f"{trace.labels.where} chooses by values that only a run can tell")
    return trace.of(given["self"]).index_select(int(given["dim"]), trace.facts.values[given["index"]])


def fixed(node: fx.Node) -> bool:
    """Does a value hang on nothing that the model is given, but sizes?"""
    seen, stack = set(), [node]
    while stack:
        each = stack.pop()
        if each.op == "placeholder":
            return False
        if each in seen or each.target in (aten.sym_size.int,):
            continue
        seen.add(each)
        stack += each.all_input_nodes
    return True


def shuffled(trace: Trace, node: fx.Node) -> Tensor:
    """channel_shuffle: the same channels of every group go, or the groups would no longer be of one size."""
    given = arguments(node)
    labels, groups = trace.of(given["self"]), int(given["groups"])
    channels = trace.labels.channels(labels, 1).view(groups, -1)
    alike = trace.labels.reduce(channels, [0]).expand(channels.shape)
    return alike.T.reshape(1, -1, *[1] * (labels.ndim - 2)).expand(labels.shape)


RULES: dict[Any, Rule] = {
    operator.getitem: item,
    **dict.fromkeys(
        packets(
            """permute transpose swapaxes swapdims t numpy_T mT mH T adjoint squeeze unsqueeze select slice narrow chunk
            split split_with_sizes unsafe_chunk unsafe_split unsafe_split_with_sizes tensor_split stack flip
            pixel_shuffle pixel_unshuffle unbind movedim moveaxis repeat tile diagonal"""
        ),
        moved,
    ),
    **dict.fromkeys(packets("view reshape _unsafe_view view_as reshape_as flatten unflatten"), reshaped),
    **dict.fromkeys(packets("expand expand_as broadcast_to"), expanded),
    **dict.fromkeys(packets("cat concat concatenate"), joined),
    **dict.fromkeys(packets("pad constant_pad_nd"), padded),
    aten.unfold: windowed,
    aten.im2col: columns,
    aten.col2im: image,
    aten.roll: rolled,
    aten.repeat_interleave: repeated,
    aten.sym_size: size,
    aten._assert_tensor_metadata: size,
    aten.index: indexed,
    aten.index_select: selected,
    aten.channel_shuffle: shuffled,
}
