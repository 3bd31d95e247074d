"""Convolutions and pools in a graph, as steps of a chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from hashcompile.core.layers import Window, arguments
from hashcompile.core.onnx_op import OnnxOp
from hashcompile.lower.pointwise import is_float
from hashcompile.lower.steps import Kind, Step

aten = torch.ops.aten


def match_window(node: fx.Node, ops: Mapping[fx.Node, OnnxOp]) -> Step | None:
    """A convolution that our kernels take, a pool, or an average over all pixels."""
    if node.op != "call_function" or not node.args or not isinstance(source := node.args[0], fx.Node):
        return None
    if not is_image(source):
        return None
    op = ops.get(node)
    if op is not None and op.operator == "CodebookConv":
        weight: Any = node.args[1]
        window = Window.of(node, tuple(weight.meta["val"].shape))
        return Step(Kind.CONV, source, (node,), op=op, window=window)
    match node.target:
        case aten.max_pool1d.default | aten.max_pool2d.default:
            pooled = pool_window(node)
            return None if pooled is None else Step(Kind.MAX_POOL, source, (node,), window=pooled)
        case aten.avg_pool1d.default | aten.avg_pool2d.default:
            return match_average(node, source)
        case aten.adaptive_avg_pool1d.default | aten.adaptive_avg_pool2d.default:
            if set(arguments(node)["output_size"]) == {1}:
                return Step(Kind.GLOBAL_AVERAGE, source, (node,))
        case aten.mean.dim:
            given, rank = arguments(node), source.meta["val"].ndim
            dims = {dim % rank for dim in given["dim"] or ()}
            if dims == set(range(2, rank)) and given["dtype"] is None:
                return Step(Kind.GLOBAL_AVERAGE, source, (node,))
    return None


def match_average(node: fx.Node, source: fx.Node) -> Step | None:
    """An average pool. What `ceil_mode` adds to the image is never counted, unlike padding."""
    given, window = arguments(node), pool_window(node)
    if window is None or given.get("divisor_override") is not None:
        return None
    counted = bool(given["count_include_pad"]) and any(window.before)
    if counted and window.after != window.before:
        return None
    return Step(Kind.AVERAGE_POOL, source, (node,), window=window, includes_padding=counted)


def pool_window(node: fx.Node) -> Window | None:
    """The window of a pool. With `ceil_mode` it may reach further behind the image: None if the image's size, and so
    how far, is not known.
    """
    given = arguments(node)
    value, pooled = node.args[0].meta["val"], node.meta["val"]  # type: ignore[union-attr]
    dims = value.ndim - 2

    def per_dim(value: Any) -> tuple[int, ...]:
        entries = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        return entries * dims if len(entries) == 1 else entries

    kernel, before = per_dim(given["kernel_size"]), per_dim(given["padding"])
    stride = per_dim(given["stride"] or given["kernel_size"])
    window = Window(kernel, stride, before, before, per_dim(given.get("dilation", 1)), 1)
    if not given["ceil_mode"]:
        return window
    sizes, wanted = value.shape[2:], pooled.shape[2:]
    if not all(isinstance(size, int) for size in (*sizes, *wanted)):
        return None
    reach = (dilation * (k - 1) + 1 for dilation, k in zip(window.dilation, kernel, strict=True))
    ends = ((out - 1) * step + span for out, step, span in zip(wanted, stride, reach, strict=True))
    after = tuple(max(end - pad - size, pad) for end, pad, size in zip(ends, before, sizes, strict=True))
    if any(pad >= k for pad, k in zip(after, kernel, strict=True)):  # ONNX Runtime pads less than a kernel
        return None
    return replace(window, after=after)


def is_image(node: fx.Node) -> bool:
    """(B, C, L) or (B, C, H, W), of float32."""
    return is_float(node) and node.meta["val"].ndim in (3, 4)
