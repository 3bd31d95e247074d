"""How activations are rounded to 8 bits, in PyTorch: what the int8 kernels do, and what stands in a file for it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Range(NamedTuple):
    """real = scale * (q - zero), q an integer in 0..255. Scale 0: every image is measured while the model runs."""

    scale: float
    zero: int


MEASURED = Range(0.0, 0)


def round_rows(x: Tensor) -> Tensor:
    """x: (..., K) to 255 levels, one symmetric scale a row."""
    return symmetric(x, (-1,))


def round_images(x: Tensor) -> Tensor:
    """x: (B, C, *spatial) to 255 levels, one symmetric scale an image."""
    return symmetric(x, tuple(range(1, x.ndim)))


def symmetric(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    scale = x.abs().amax(dims, keepdim=True) / 127 if x.numel() else x.sum(dims, keepdim=True)
    return torch.where(scale > 0, torch.round(x / scale) * scale, x)


def round_affine(x: Tensor, scale: float, zero: int) -> Tensor:
    """x: (B, C, *spatial) to 256 levels; with scale 0, between the least and the largest value of each image and 0."""
    if scale:
        return (torch.clamp(torch.round(x * (1 / scale)) + zero, 0, 255) - zero) * scale
    if not x.numel():
        return x
    dims = tuple(range(1, x.ndim))
    low, high = x.amin(dims, keepdim=True).clamp(max=0), x.amax(dims, keepdim=True).clamp(min=0)
    scales = (high - low) / 255
    inverse = 1 / scales
    zeros = torch.round(-low * inverse)
    rounded = (torch.clamp(torch.round(x * inverse) + zeros, 0, 255) - zeros) * scales
    return torch.where(scales > 0, rounded, x)


ROUNDINGS = (round_rows, round_images, round_affine)
