"""Operators along dims: reductions, softmax, scans, sorting, pooling. Each result depends on all along its dims."""

from __future__ import annotations

from typing import Any

from torch import fx

from hashcompile.core.layers import arguments
from hashcompile.passes.channels.rules.pointwise import pointwise
from hashcompile.passes.channels.rules.table import packets
from hashcompile.passes.channels.trace import Rule, Trace


def reduction(trace: Trace, node: fx.Node) -> Any:
    """mean, amax ...: with or without the dims that they reduce."""
    given = arguments(node)
    if "other" in given:
        return pointwise(trace, node)
    labels = trace.of(given.get("self", given.get("input")))
    dims = dims_of(given, labels.ndim)
    reduced = trace.labels.reduce(labels, dims)
    shape = trace.facts.shapes[node]
    return [reduced.reshape(each) for each in shape] if isinstance(shape, list) else reduced.reshape(shape)


def scan(trace: Trace, node: fx.Node) -> Any:
    """softmax, cumsum, sort ...: of the input's shape, or cut along the dim."""
    given = arguments(node)
    labels = trace.of(given.get("self", given.get("input")))
    mixed = trace.labels.reduce(labels, dims_of(given, labels.ndim))
    shape = trace.facts.shapes[node]
    return [mixed.expand(each) for each in shape] if isinstance(shape, list) else mixed.expand(shape)


def dims_of(given: dict[str, Any], ndim: int) -> list[int]:
    """The dims that an operator works along; all of them where it names none."""
    dims = given.get("dim")
    if dims is None or dims == []:
        return list(range(ndim))
    return [int(dim) for dim in dims] if isinstance(dims, (list, tuple)) else [int(dims)]


def window(trace: Trace, node: fx.Node) -> Any:
    """Pooling and resizing: the last dims are positions, one to three of them as the operator's name says."""
    labels = trace.of(arguments(node).get("self", arguments(node).get("input")))
    name = str(node.target)
    spatial = next(n for n, mark in ((3, "3d"), (2, "2d"), (1, "1d")) if mark in name)
    mixed = trace.labels.reduce(labels, range(-spatial, 0))
    shape = trace.facts.shapes[node]
    return [mixed.expand(each) for each in shape] if isinstance(shape, list) else mixed.expand(shape)


POOLS = """max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d max_pool2d_with_indices
    max_pool3d_with_indices upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d
    upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa reflection_pad1d reflection_pad2d
    reflection_pad3d replication_pad1d replication_pad2d replication_pad3d"""

RULES: dict[Any, Rule] = {
    **dict.fromkeys(
        packets(
            """mean sum amax amin max min prod logsumexp linalg_vector_norm norm var std var_mean std_mean argmax
            argmin any all median nanmean count_nonzero"""
        ),
        reduction,
    ),
    **dict.fromkeys(
        packets("softmax _softmax log_softmax _log_softmax cumsum cumprod cummax cummin sort topk"), scan
    ),
    **dict.fromkeys(packets(POOLS), window),
}
