"""Batch-norm statistics estimated again behind encoded layers, where measurement says that it helps.

A code changes the moments of a layer's outputs. The mean is already put right while encoding; the variance can be, too,
but then a norm also amplifies what the code lost. Which of the two wins depends on the model and on the bits (on
CIFAR ResNets with error feedback the old statistics win at 2 to 4 bits), so both are run and the better one is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from hashcompile.core.graph import replace_tensor
from hashcompile.core.layers import arguments, attribute
from hashcompile.core.signature import Batch
from hashcompile.core.sweep import sweep, walk

BATCH_NORM = torch.ops.aten.batch_norm.default


def refit_norms(graph: fx.GraphModule, original: Sequence[Any], batches: Sequence[Batch]) -> bool:
    """Re-estimate on `batches` if that brings the outputs closer to the `original` ones. True if it did."""
    norms = [node for node in graph.graph.nodes if node.target is BATCH_NORM and refittable(node)]
    if not norms or not batches:
        return False
    before = {name: attribute(graph, name) for node in norms for name in statistics_of(node)}
    kept = lost(sweep(graph, batches), original)
    for node, inputs in walk(graph, batches, stops={BATCH_NORM}):
        if node in norms:
            mean, variance = channel_moments(inputs)
            for name, value in zip(statistics_of(node), (mean, variance), strict=True):
                replace_tensor(graph, name, value.to(before[name].dtype))
    if lost(sweep(graph, batches), original) < kept:
        return True
    for name, value in before.items():
        replace_tensor(graph, name, value)
    return False


def refittable(node: fx.Node) -> bool:
    """Are its statistics its own, and in use?"""
    given = arguments(node)
    buffers = (given["running_mean"], given["running_var"])
    return all(
        buffer is not None and buffer.op == "get_attr" and len(buffer.users) == 1 for buffer in buffers
    )


def statistics_of(node: fx.Node) -> tuple[str, str]:
    given = arguments(node)
    return str(given["running_mean"].target), str(given["running_var"].target)


def channel_moments(inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance of (B, C, ...) over everything but C."""
    count = sum(x.numel() // x.shape[1] for x in inputs)
    dims = [0, *range(2, inputs[0].ndim)]
    mean = torch.stack([x.double().sum(dims) for x in inputs]).sum(0) / max(1, count)
    shape = [1, -1, *[1] * (inputs[0].ndim - 2)]
    spread = torch.stack([(x.double() - mean.view(shape)).square().sum(dims) for x in inputs])
    return mean, spread.sum(0) / max(1, count - 1)


def lost(outputs: Sequence[Any], original: Sequence[Any]) -> float:
    """Squared distance of all float outputs."""
    pairs = zip(pytree.tree_leaves(list(outputs)), pytree.tree_leaves(list(original)), strict=True)
    return sum(
        float((a.double() - b.double()).square().sum())
        for a, b in pairs
        if isinstance(a, Tensor) and a.is_floating_point()
    )
