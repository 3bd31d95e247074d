"""Sums and activations: what a product's kernel can do to each value on its way out."""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import fx

from hashcompile.core.layers import arguments

aten = torch.ops.aten
UNBOUNDED = torch.finfo(torch.float32).max


class Activation(IntEnum):
    NONE = 0
    RELU = 1
    CLIP = 2
    GELU = 3
    GELU_TANH = 4
    SILU = 5
    HARD_SWISH = 6


def activation_of(node: fx.Node) -> tuple[Activation, float, float] | None:
    """(which, low, high) of a node that applies an activation to its first argument."""
    if node.op != "call_function" or not is_float(node):
        return None
    match node.target:
        case aten.relu.default:
            return Activation.RELU, 0.0, 0.0
        case aten.relu6.default:
            return Activation.CLIP, 0.0, 6.0
        case aten.hardtanh.default:
            given = arguments(node)
            return Activation.CLIP, float(given["min_val"]), float(given["max_val"])
        case aten.clamp.default:
            given = arguments(node)
            low = -UNBOUNDED if given["min"] is None else float(given["min"])
            return Activation.CLIP, low, UNBOUNDED if given["max"] is None else float(given["max"])
        case aten.gelu.default:
            tanh = arguments(node)["approximate"] == "tanh"
            return Activation.GELU_TANH if tanh else Activation.GELU, 0.0, 0.0
        case aten.silu.default:
            return Activation.SILU, 0.0, 0.0
        case aten.hardswish.default:
            return Activation.HARD_SWISH, 0.0, 0.0
    return None


def addends_of(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """The addends, where both are float32 and of one shape."""
    if node.target is not aten.add.Tensor or not is_float(node):
        return None
    given = arguments(node)
    first, second = given["self"], given["other"]
    if given["alpha"] != 1 or not all(isinstance(x, fx.Node) and is_float(x) for x in (first, second)):
        return None
    shapes = {str(tuple(x.meta["val"].shape)) for x in (first, second)}
    return (first, second) if len(shapes) == 1 else None


def is_float(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32
