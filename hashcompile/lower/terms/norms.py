"""Statistics, norms and distances."""

from __future__ import annotations

import math
from math import prod
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def normalized(x: Tensor, dims: list[int], epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """(x - mean) / deviation over `dims`, the mean, and 1 / deviation."""
    mean = x.mean(dims, keepdim=True)
    moved = x - mean
    inverse = (moved.square().mean(dims, keepdim=True) + epsilon).rsqrt()
    return moved * inverse, mean, inverse


def with_affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Channels of x (B, C, ...) times `weight` (C), plus `bias` (C)."""
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    x = x if weight is None else x * weight.view(shape)
    return x if bias is None else x + bias.view(shape)


def group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    batch: int,
    channels: int,
    pixels: int,
    groups: int,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    parts, mean, inverse = normalized(x.reshape(batch, groups, channels // groups * pixels), [2], epsilon)
    return with_affine(parts.reshape(x.shape), weight, bias), mean.squeeze(2), inverse.squeeze(2)


def own_batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, _training: bool, _momentum: float, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """A batch norm with the statistics of its own input, which is what an instance norm comes to."""
    dims = [dim for dim in range(x.ndim) if dim != 1]
    parts, mean, inverse = normalized(x, dims, epsilon)
    return with_affine(parts, weight, bias), mean.flatten(), inverse.flatten()


def instance_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    own_statistics: bool,
    _momentum: float,
    epsilon: float,
    _cudnn: bool,
) -> Tensor:
    if own_statistics:
        return with_affine(normalized(x, list(range(2, x.ndim)), epsilon)[0], weight, bias)
    assert mean is not None and variance is not None
    inverse = (variance + epsilon).rsqrt()
    return with_affine(with_affine(x, inverse, -mean * inverse), weight, bias)


def variance(
    x: Tensor, dims: list[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> Tensor:
    dims = dims or list(range(x.ndim))
    total = (x - x.mean(dims, keepdim=True)).square().sum(dims, keepdim)
    count: Any = prod(x.shape[dim] for dim in dims)
    correction = 1 if correction is None else correction
    if isinstance(count, int) and count > correction:
        return total / (count - correction)
    if isinstance(count, int):  # TVM refuses to divide by 0
        return torch.where(total > 0, torch.inf, torch.nan).to(total.dtype)
    # the importer divides by numbers that it knows, and by tensors
    return total / (torch.ones_like(x).sum(dims, keepdim) - correction).clamp(min=0)


def variance_and_mean(
    x: Tensor, dims: list[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    return variance(x, dims, correction=correction, keepdim=keepdim), x.mean(
        dims or list(range(x.ndim)), keepdim
    )


def vector_norm(
    x: Tensor,
    order: float = 2,
    dims: list[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Of the orders that are no power of a sum."""
    x = x if dtype is None else x.to(dtype)
    over = dims or list(range(x.ndim))
    if order == 0:
        return (x != 0).to(x.dtype).sum(over, keepdim)
    if math.isinf(order):
        return x.abs().amax(over, keepdim) if order > 0 else x.abs().amin(over, keepdim)
    return NotImplemented if dtype is None else aten.linalg_vector_norm.default(x, order, dims, keepdim)


def cdist(x: Tensor, y: Tensor, p: float, _mode: int | None) -> Tensor:
    return torch.linalg.vector_norm(x.unsqueeze(-2) - y.unsqueeze(-3), p, -1)
