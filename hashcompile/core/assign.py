"""Values replaced by allowed values, as functions that train: the nearest one, or a soft mixture of them all.

With allowed values c_1 ... c_L, the nearest of a value u is q(u) = c_i, i = argmin_l |u - c_l|. Its derivative is zero
or infinite, so what flows back through it is one of two stand-ins:

- **straight-through** (Bengio, Leonard & Courville 2013, arXiv 1308.3432): dq/du = 1; dq/dc_l = 1 for the entry taken.
- **soft assignment**, the attention of differentiable k-means (Cho et al. 2022, arXiv 2108.12659): q is a mixture whose
  weights become one entry's as the temperature T falls to 0,

      q(u) = sum_l p_l c_l,    p = softmax_l(-(u - c_l)^2 / T),

      dq/du = 2/T sum_l p_l (c_l - q)^2,    dq/dc_l = p_l (1 + 2/T (c_l - q) (u - c_l))

Only u and c are kept for the backward pass. The mixture's weights, L for each value, exist for `BLOCK` of them at a
time, and are computed again on the way back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 1 << 20  # weights of the mixture that are held at once: 4 MiB


def nearest(values: Tensor, table: Tensor) -> Tensor:
    """Index of the nearest entry of `table: (L,)`, L <= 256, for each of `values`, as uint8 of their shape.

    Entries may come in any order; halfway between two of them the smaller one is taken.
    """
    ordered, order = table.detach().sort(stable=True)
    rank = torch.bucketize(values.detach(), (ordered[1:] + ordered[:-1]) / 2, out_int32=True)
    return order.to(torch.uint8)[rank]


def within(values: Tensor, table: Tensor, indices: Tensor, margin: float = 0.5) -> Tensor:
    """`values` whose nearest entry is the one at `indices`; where it is not, they are moved to where it is.

    margin: how far those that move go beyond where the nearest entry changes, as a share of the way to their own.
    """
    ordered, order = table.sort(stable=True)
    middle = (ordered[1:] + ordered[:-1]) / 2
    least = torch.cat([ordered.new_tensor([-torch.inf]), torch.lerp(middle, ordered[1:], margin)])
    most = torch.cat([torch.lerp(middle, ordered[:-1], margin), ordered.new_tensor([torch.inf])])
    rank = order.argsort().to(torch.uint8)[indices.int()].int()
    return torch.where(nearest(values, table) == indices, values, values.clamp(least[rank], most[rank]))


def spread(table: Tensor) -> Tensor:
    """(): half the mean square of the gaps in `table: (L,)`. At this temperature the mixture of two entries, or of many
    at equal distances, has slope 1 between them: it follows its values.
    """
    gaps = table.sort().values.diff()
    square = gaps.square().sum() / (gaps > 0).sum().clamp_min(1) / 2
    return torch.where(square > 0, square, 1.0)


def straight_through(values: Tensor, table: Tensor, indices: Tensor, slope: float = 1.0) -> Tensor:
    """`table[indices]`, with the gradient of `values` that of the result times `slope`: 0 where indices are given."""
    return _StraightThrough.apply(values, table, indices, slope)  # type: ignore[no-untyped-call]


def soft(values: Tensor, table: Tensor, temperature: Tensor) -> Tensor:
    """The mixture q of `table: (L,)` for each of `values`; `temperature: ()` > 0 is in their squared units."""
    return _Soft.apply(values, table, temperature)  # type: ignore[no-untyped-call]


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, table: Tensor, indices: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(indices)
        ctx.entries, ctx.slope = len(table), slope
        return table[indices.int()]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (indices,) = ctx.saved_tensors
        sums = gradient.new_zeros(ctx.entries)
        sums.index_add_(0, indices.flatten().int(), gradient.flatten())
        return gradient * ctx.slope, sums, None, None


class _Soft(torch.autograd.Function):
    # sums instead of products of matrices, which autocast would round
    @staticmethod
    def forward(ctx: Any, values: Tensor, table: Tensor, temperature: Tensor) -> Tensor:
        ctx.save_for_backward(values, table, temperature)
        parts = [(_mixture(part, table, temperature) * table).sum(1) for part in _blocks(values, table)]
        return torch.cat(parts).view(values.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        values, table, temperature = ctx.saved_tensors
        sums, slopes = torch.zeros_like(table), []
        for part, above in zip(_blocks(values, table), _blocks(gradient, table), strict=True):
            weights = _mixture(part, table, temperature)
            apart = table - (weights * table).sum(1, keepdim=True)  # c_l - q: (B, L)
            slopes.append(above * (weights * apart.square()).sum(1) * 2 / temperature)
            weights = weights * (1 + 2 / temperature * apart * (part[:, None] - table))
            sums += (weights * above[:, None]).sum(0)
        return torch.cat(slopes).view(values.shape), sums, None


def _blocks(values: Tensor, table: Tensor) -> tuple[Tensor, ...]:
    """At least one, of as many values as have `BLOCK` weights."""
    return values.reshape(-1).split(max(1, BLOCK // len(table)))


def _mixture(values: Tensor, table: Tensor, temperature: Tensor) -> Tensor:
    """p: (B, L) of `values: (B,)`."""
    return (-(values[:, None] - table).square() / temperature).softmax(1)
