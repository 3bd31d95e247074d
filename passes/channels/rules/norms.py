"""Norms. A batch norm knows its channels one by one; every other norm mixes those that it normalises."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from hashcompile.core.layers import arguments
from hashcompile.passes.channels.trace import Rule, Trace

aten = torch.ops.aten

PER_CHANNEL = ("weight", "bias", "running_mean", "running_var")


def batch_norm(trace: Trace, node: fx.Node) -> Tensor:
    given = arguments(node)
    labels = trace.of(given["input"])
    join_channels(trace, trace.labels.channels(labels, 1), given)
    return labels


def instance_norm(trace: Trace, node: fx.Node) -> Tensor:
    given = arguments(node)
    labels = trace.of(given["input"])
    join_channels(trace, trace.labels.channels(labels, 1), given)
    return trace.labels.reduce(labels, range(2, labels.ndim)).expand(labels.shape)


def group_norm(trace: Trace, node: fx.Node) -> Tensor:
    given = arguments(node)
    labels = trace.of(given["input"])
    channels = trace.labels.channels(labels, 1)
    trace.labels.reduce(channels.view(int(given["num_groups"]), -1), [1])
    join_channels(trace, channels, given)
    return channels.view(1, -1, *[1] * (labels.ndim - 2)).expand(labels.shape)


def join_channels(trace: Trace, channels: Tensor, given: dict[str, Any]) -> None:
    for name in PER_CHANNEL:
        if given.get(name) is not None:
            trace.labels.unify(channels, trace.of(given[name]))


def layer_norm(trace: Trace, node: fx.Node) -> Tensor:
    """The affine parameters of a norm within heads are shared by all of them: `join` then leaves the heads apart."""
    given = arguments(node)
    labels = trace.of(given["input"])
    normed = trace.labels.reduce(labels, range(-len(given["normalized_shape"]), 0)).expand(labels.shape)
    affine = [trace.of(given[name]) for name in ("weight", "bias") if given.get(name) is not None]
    return trace.labels.join(normed, *affine)


def weight_norm(trace: Trace, node: fx.Node) -> Tensor:
    """g * v / |v|: one norm for each index of `dim`, over all other dims."""
    given = arguments(node)
    labels, scale = trace.of(given["v"]), trace.of(given["g"])
    others = [dim for dim in range(labels.ndim) if dim != int(given["dim"]) % labels.ndim]
    return trace.labels.join(trace.labels.reduce(labels, others).expand(labels.shape), scale)


RULES: dict[Any, Rule] = {
    aten.batch_norm: batch_norm,
    aten.instance_norm: instance_norm,
    aten.group_norm: group_norm,
    aten.layer_norm: layer_norm,
    aten.rms_norm: layer_norm,
    aten._weight_norm: weight_norm,
}
