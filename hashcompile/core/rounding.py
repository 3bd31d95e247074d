"""How activations are rounded, in PyTorch: what the int8 and bf16 kernels do, and what stands in a file for it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


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


def round_bf16(x: Tensor) -> Tensor:
    """To 8 significant bits, halves to even."""
    return x.to(torch.bfloat16).to(torch.float32)


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


FEWEST_QUERIES = 8  # of an attention in int8; with fewer the kernels compute in fp32
STEPS = 256  # that the rounding error of a weight is counted in
LANES = 32  # keys from one to that which takes its rounding error


def round_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    *,
    scale: float,
    causal: bool,
    safe: bool,
    token_major: bool,
) -> Tensor:
    """softmax(scale * q k' + mask) v, with both products in 8 bits.

    q: (B, H, Sq, D); k: (B, Hkv, Sk, D); v: (B, Hkv, Sk, Dv), H a multiple of Hkv -> (B, H, Sq, Dv); or one head, and
    none of them has that dim.
    Queries and keys have a scale for each token and head, values one for each feature and head.
    safe: a query that sees no key gives zeros, not NaN. token_major: y lies in memory as (B, Sq, H, Dv).
    """
    if q.ndim == 3:
        mask = mask.unsqueeze(1) if mask is not None and mask.ndim == 3 else mask
        y = round_attention(
            q[:, None], k[:, None], v[:, None], mask, scale=scale, causal=causal, safe=safe, token_major=False
        )
        return y[:, 0]
    in_int8 = q.shape[2] >= FEWEST_QUERIES
    if in_int8:
        q, k, v = round_rows(q), round_rows(k), symmetric(v, (2,))
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    scores = q @ k.transpose(2, 3) * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype is torch.bool else scores + mask
    if causal:
        scores = scores.masked_fill(~torch.ones(scores.shape[2:], dtype=torch.bool).tril(), -torch.inf)
    most = scores.amax(-1, keepdim=True) if scores.numel() else scores.sum(-1, keepdim=True)
    weights = torch.exp(scores - torch.where(most == -torch.inf, 0, most))
    if in_int8:
        weights = whole(255 * weights)
    total = weights.sum(-1, keepdim=True)
    y = weights @ v / (torch.where(total == 0, 1, total) if safe or not k.shape[2] else total)
    return y.transpose(1, 2).contiguous().transpose(1, 2) if token_major else y


def whole(weights: Tensor) -> Tensor:
    """weights: (..., Sk) to whole numbers; what one is off by is added to the weight `LANES` places on."""
    steps = torch.round(weights * STEPS).double()
    by_lane = nn.functional.pad(steps, (0, -steps.shape[-1] % LANES)).unflatten(-1, (-1, LANES))
    sums = torch.floor((by_lane.cumsum(-2) + STEPS / 2) / STEPS)
    rounded = torch.diff(sums, dim=-2, prepend=torch.zeros_like(sums[..., :1, :]))
    return rounded.flatten(-2)[..., : weights.shape[-1]].to(weights.dtype)


ROUNDINGS = (round_rows, round_images, round_affine, round_bf16, round_attention)
