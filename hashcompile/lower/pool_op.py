"""A pool over images whose channels come last. No ONNX file holds it, so it has no body."""

from __future__ import annotations

from typing import Any

from hashcompile.core.layers import Window
from hashcompile.core.onnx_op import Attribute, OnnxOp
from hashcompile.lower.steps import Kind, Step

OPERATOR = "Pool"
KINDS = (Kind.MAX_POOL, Kind.AVERAGE_POOL, Kind.GLOBAL_AVERAGE)


def pool_op(step: Step) -> OnnxOp:
    """x (B, H, W, C) -> (B, OH, OW, C), for a step of one of KINDS."""
    attributes: dict[str, Attribute] = {"average": int(step.kind is not Kind.MAX_POOL)}
    window = step.window
    if window is None:
        attributes["global"] = 1
    else:
        attributes |= window.geometry() | {"counts_padding": int(step.includes_padding)}

    return OnnxOp(OPERATOR, step.kind.name.lower(), dict, attributes, "", lambda x: pooled(x.shape, window))


def pooled(shape: tuple[Any, ...], window: Window | None) -> tuple[Any, ...]:
    """The shape of a pool's output; without a window all pixels are one."""
    batch, height, width, channels = shape
    if window is None:
        return batch, 1, 1, channels
    return batch, window.out_size(height, 0), window.out_size(width, 1), channels
