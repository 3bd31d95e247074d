"""Windows, pools and interpolation of images."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._decomp import get_decompositions
from torch.nn import functional

aten = torch.ops.aten


def im2col(
    x: Tensor, kernel: list[int], dilation: list[int], padding: list[int], stride: list[int]
) -> Tensor:
    """(B, C, H, W) -> (B, C * taps, places), every tap a slice."""
    if x.ndim == 3:
        return im2col(x[None], kernel, dilation, padding, stride)[0]
    x = functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    places = [(x.shape[2 + d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1 for d in range(2)]
    taps = []
    for tap in product(*map(range, kernel)):
        part = x
        for d in range(2):
            first = tap[d] * dilation[d]
            part = aten.slice.Tensor(part, 2 + d, first, first + (places[d] - 1) * stride[d] + 1, stride[d])
        taps.append(part)
    return torch.stack(taps, 2).flatten(3).flatten(1, 2)


def col2im(
    x: Tensor, size: list[int], kernel: list[int], dilation: list[int], padding: list[int], stride: list[int]
) -> Tensor:
    """(B, C * taps, places) -> (B, C, *size): of every tap an image with zeros between its places, and their sum."""
    if x.ndim == 2:
        return col2im(x[None], size, kernel, dilation, padding, stride)[0]
    whole = [size[d] + 2 * padding[d] for d in range(2)]
    places = [(whole[d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1 for d in range(2)]
    parts = x.unflatten(2, places).unflatten(1, (-1, prod(kernel)))
    images = []
    for i, tap in enumerate(product(*map(range, kernel))):
        y = parts[:, :, i, :, None, :, None]
        y = functional.pad(y, (0, stride[1] - 1, 0, 0, 0, stride[0] - 1)).flatten(4, 5).flatten(2, 3)
        begin = [tap[d] * dilation[d] for d in range(2)]
        have = [(places[d] - 1) * stride[d] + 1 for d in range(2)]
        left, right = begin, [whole[d] - begin[d] - have[d] for d in range(2)]
        y = y[:, :, : have[0], : have[1]]
        images.append(functional.pad(y, (left[1], right[1], left[0], right[0])))
    rows, columns = (slice(padding[d], padding[d] + size[d]) for d in range(2))
    return sum(images[1:], images[0])[:, :, rows, columns]


def unfold(x: Tensor, dim: int, size: int, step: int) -> Tensor:
    """Windows along `dim`, which may share values; their values become the last dim."""
    dim %= x.ndim
    count = (x.shape[dim] - size) // step + 1
    places = (torch.arange(count)[:, None] * step + torch.arange(size)).flatten()
    return x.index_select(dim, places).unflatten(dim, (count, size)).movedim(dim + 1, -1)


def average_pool(
    x: Tensor,
    kernel: list[int],
    stride: list[int] | None = None,
    padding: list[int] | int = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Tensor:
    """With a divisor of its own, of which the importer knows nothing: the mean of an image with its margins, scaled."""
    if divisor is None:
        return NotImplemented
    dims = len(kernel)
    margin = [padding] * dims if isinstance(padding, int) else [*padding] * (dims // len(padding) or 1)
    steps = list(stride or kernel)
    margins: list[int] = []
    for size, taps, step, before in zip(x.shape[-dims:], kernel, steps, margin, strict=True):
        places = (size + 2 * before - taps) // step + 1
        if ceil_mode and places * step < min(size + before, size + 2 * before - taps + step):
            places += 1
        margins = [before, max(before, (places - 1) * step + taps - size - before), *margins]
    pool: Any = functional.avg_pool2d if dims == 2 else functional.avg_pool3d
    return pool(functional.pad(x, margins), kernel, steps) * (prod(kernel) / divisor)


nearest_of_any_size, bilinear_of_any_scale = get_decompositions(
    [aten.upsample_nearest2d.vec, aten.upsample_bilinear2d.vec]
).values()


def nearest(x: Tensor, size: list[int] | None, scales: list[float] | None) -> Tensor:
    """Interpolation to a whole multiple of the size repeats pixels; else PyTorch's own terms."""
    known = all(isinstance(each, int) for each in (*x.shape[2:], *(size or ())))
    given = size or [int(length * scale) for length, scale in zip(x.shape[2:], scales or (), strict=True)]
    if not known or any(wanted % length for wanted, length in zip(given, x.shape[2:], strict=True)):
        return nearest_of_any_size(x, size, scales)
    if scales and any(scale != int(scale) for scale in scales):
        return nearest_of_any_size(x, size, scales)
    rows, columns = (wanted // length for wanted, length in zip(given, x.shape[2:], strict=True))
    repeated = x[:, :, :, None, :, None].expand(-1, -1, -1, rows, -1, columns)
    return repeated.reshape(*x.shape[:2], *given)


def bilinear_image(
    x: Tensor, size: list[int] | None, align_corners: bool, scales: list[float] | None = None
) -> Tensor:
    """The importer has a row that knows a size alone; a scale that leaves a rest moves all places."""
    if scales is None or all(
        isinstance(length, int) and length * scale == int(length * scale)
        for length, scale in zip(x.shape[2:], scales, strict=True)
    ):
        return NotImplemented
    return bilinear_of_any_scale(x, size, align_corners, scales)
