"""What a chain of int8 convolutions must compute, in numpy, one step after another.

`run` takes the attributes and the inputs of a `com.hashcompile::Chain` node. Products are exact integers; everything
else is float32, in the order in which it is written here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tests.oracle import FIELDS, unpacked

Float32 = npt.NDArray[np.float32]


class Kind(IntEnum):
    CONV = 0
    MAX_POOL = 1
    AVERAGE_POOL = 2
    GLOBAL_AVERAGE = 3
    ADD = 4
    SUBSAMPLE = 5


class Activation(IntEnum):
    NONE = 0
    RELU = 1
    CLIP = 2
    GELU = 3
    GELU_TANH = 4
    SILU = 5
    HARD_SWISH = 6


class Quantized(NamedTuple):
    """real = scale * (q - zero); scale and zero are one a tensor, or one an image."""

    q: npt.NDArray[np.float64]  # (B, C, H, W), integers 0..255
    scale: Float32  # (B, 1, 1, 1)
    zero: npt.NDArray[np.float64]  # (B, 1, 1, 1)

    @property
    def centred(self) -> npt.NDArray[np.float64]:
        return self.q - self.zero

    @property
    def real(self) -> Float32:
        return self.centred.astype(np.float32) * self.scale


def run(attributes: Mapping[str, Any], inputs: Sequence[npt.NDArray[Any]]) -> list[Float32]:
    """The chain's outputs, (B, C, H, W) or (B, C, L) as its inputs are."""
    count = attributes["activations"]
    flat = inputs[0].ndim == 3
    ranges = np.reshape(np.asarray(attributes["tensors"], np.float32), (-1, 2))
    steps = [
        dict(zip(FIELDS, map(int, row), strict=True))
        for row in np.reshape(attributes["steps"], (-1, len(FIELDS)))
    ]
    bounds = np.reshape(np.asarray(attributes["bounds"], np.float32), (-1, 2))
    read = {*range(count), *(step["input"] for step in steps), *(step["other"] for step in steps)}
    held: dict[int, Any] = {}

    def keep(number: int, x: Float32) -> None:
        held[number] = quantize(x, *ranges[number]) if number in read else x

    for number, x in enumerate(inputs[:count]):
        keep(number, x[:, :, None] if flat else x)
    for step, (low, high) in zip(steps, bounds, strict=True):
        x = held[step["input"]]
        added = held[step["other"]] if step["other"] >= 0 else None
        match step["kind"]:
            case Kind.CONV:
                first, number = count + 4 * step["weight"], step["output"]
                sums = conv(step, x, *inputs[first : first + 4])
                if number in read and ranges[number, 0] and step["activation"] <= Activation.CLIP:
                    held[number] = levels(sums, added, step["activation"], low, high, *ranges[number])
                    continue
                y = sums.real if added is None else sums.real + added.real
            case Kind.MAX_POOL | Kind.AVERAGE_POOL:
                y = pool(step, x)
            case Kind.GLOBAL_AVERAGE:
                y = average(x, x.centred.sum((2, 3), keepdims=True), np.float32(x.q.shape[2] * x.q.shape[3]))
            case Kind.ADD:
                y = x.real + added.real
            case Kind.SUBSAMPLE:
                taken = x.q[:, :, :: step["stride_h"], :: step["stride_w"]] - x.zero
                around = ((0, 0), (step["channels_before"], step["channels_after"]), (0, 0), (0, 0))
                same = x._replace(q=np.pad(taken, around) + x.zero)
                number = step["output"]
                if number in read and not ranges[number, 0] and step["activation"] == Activation.NONE:
                    held[number] = same
                    continue
                y = same.real
        keep(step["output"], activate(y, step["activation"], low, high))
    outputs = [held[number] for number in attributes["outputs"]]
    reals = [y.real if isinstance(y, Quantized) else y for y in outputs]
    return [y[:, :, 0] for y in reals] if flat else reals


def quantize(x: Float32, scale: np.float32, zero: np.float32) -> Quantized:
    """scale 0: the range of each image, 0 included. An image that is not finite becomes NaN."""
    axes = {"axis": (1, 2, 3), "keepdims": True, "initial": np.float32(0)}
    low, high = np.min(x, **axes), np.max(x, **axes)
    scales = np.full_like(low, scale) if scale else (high - low) / np.float32(255)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.float32(1) / scales
    inverse = np.where(np.isfinite(inverse), inverse, np.float32(0))
    zeros = np.full_like(low, zero) if scale else np.rint(np.minimum(-low * inverse, np.float32(255)))
    finite = np.isfinite(low) & np.isfinite(high)
    q = np.where(finite, np.rint(np.where(finite, x, 0) * inverse) + zeros, 0)
    return Quantized(
        np.clip(q, 0, 255).astype(np.float64),
        np.where(finite, scales, np.float32(np.nan)),
        np.where(finite, zeros, 0).astype(np.float64),
    )


class Sums(NamedTuple):
    """Those of a convolution: integers, and what makes them real."""

    total: Float32  # (B, N, OH, OW)
    both: Float32  # the scale of an image times that of a table
    scale: Float32
    bias: Float32

    @property
    def real(self) -> Float32:
        return self.total * self.both * self.scale + self.bias


def levels(
    sums: Sums,
    other: Quantized | None,
    which: int,
    low: np.float32,
    high: np.float32,
    scale: np.float32,
    zero: Any,
) -> Quantized:
    """Sums to 8 bits in a known range, after an activation that is none or a clip, in one multiplication and sum."""
    inverse = np.float32(1) / scale
    y = sums.total * (sums.both * sums.scale * inverse)
    shift = sums.bias * inverse
    if other is not None:
        factor = other.scale * inverse
        y = y + (shift - other.zero.astype(np.float32) * factor) + other.q.astype(np.float32) * factor
    else:
        y = y + shift
    with np.errstate(over="ignore"):
        bounds = activate(np.array([-np.inf, np.inf], np.float32), which, low, high) * inverse
    q = np.clip(np.clip(np.rint(y), *np.rint(bounds)) + zero, 0, 255)
    each_image = np.ones((len(y), 1, 1, 1), np.float32)
    return Quantized(q.astype(np.float64), each_image * scale, each_image.astype(np.float64) * zero)


def conv(
    step: Mapping[str, int],
    x: Quantized,
    codes: npt.NDArray[np.uint8],
    codebook: Float32,
    scale: Float32,
    bias: Float32,
) -> Sums:
    rows, columns = len(scale), step["in_features"]
    group = np.arange(rows) // step["group_rows"] if step["group_rows"] else np.zeros(rows, np.int64)
    largest = np.abs(codebook).max(1, keepdims=True) / np.float32(127)
    table = np.clip(np.rint(codebook / np.where(largest > 0, largest, 1)), -127, 127)
    taps = table[group[:, None], unpacked(codes, step["bits"], rows, columns)].astype(np.float64)
    kernel = step["kernel_h"], step["kernel_w"]
    filters = taps.reshape(rows, *kernel, columns // math.prod(kernel)).transpose(0, 3, 1, 2)
    padded = np.pad(x.centred, ((0, 0), (0, 0), (step["top"], step["bottom"]), (step["left"], step["right"])))
    total = torch.nn.functional.conv2d(
        torch.from_numpy(padded),
        torch.from_numpy(np.ascontiguousarray(filters)),
        stride=(step["stride_h"], step["stride_w"]),
        dilation=(step["dilation_h"], step["dilation_w"]),
        groups=step["groups"],
    ).numpy()
    each_row = (1, rows, 1, 1)
    both = x.scale * largest[group, 0].reshape(each_row)
    return Sums(total.astype(np.float32), both, scale.reshape(each_row), bias.reshape(each_row))


def pool(step: Mapping[str, int], x: Quantized) -> Float32:
    maximum = step["kind"] == Kind.MAX_POOL
    margins = ((0, 0), (0, 0), (step["top"], step["bottom"]), (step["left"], step["right"]))
    padded = np.pad(x.centred, margins, constant_values=-np.inf if maximum else 0)
    inside = np.pad(np.ones(x.q.shape[2:]), margins[2:], constant_values=1 if step["flag"] else 0)
    taps = windows(step, padded)
    if maximum:
        return taps.max(-1).astype(np.float32) * x.scale
    return average(x, taps.sum(-1), windows(step, inside).sum(-1).astype(np.float32))


def average(x: Quantized, total: npt.NDArray[np.float64], count: Any) -> Float32:
    return total.astype(np.float32) * (x.scale / count)


def windows(step: Mapping[str, int], x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(..., H, W) -> (..., OH, OW, taps)."""
    height, width = x.shape[-2:]
    taps = []
    for i in range(step["kernel_h"]):
        for j in range(step["kernel_w"]):
            top, left = i * step["dilation_h"], j * step["dilation_w"]
            last_h = height - (step["kernel_h"] - 1) * step["dilation_h"] + top
            last_w = width - (step["kernel_w"] - 1) * step["dilation_w"] + left
            taps.append(x[..., top : last_h : step["stride_h"], left : last_w : step["stride_w"]])
    return np.stack(taps, -1)


def activate(y: Float32, which: int, low: np.float32, high: np.float32) -> Float32:
    """Those that are no polynomial, by torch in float64."""
    exact = torch.from_numpy(y).double()
    match which:
        case Activation.NONE:
            return y
        case Activation.RELU:
            return np.maximum(y, np.float32(0))
        case Activation.CLIP:
            return np.clip(y, low, high)
        case Activation.GELU:
            exact = torch.nn.functional.gelu(exact)
        case Activation.GELU_TANH:
            exact = torch.nn.functional.gelu(exact, approximate="tanh")
        case Activation.SILU:
            exact = torch.nn.functional.silu(exact)
        case Activation.HARD_SWISH:
            exact = torch.nn.functional.hardswish(exact)
    return exact.float().numpy()
