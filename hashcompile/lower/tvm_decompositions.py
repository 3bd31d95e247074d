"""Operators that TVM's importer lacks, or gets wrong, and the terms of other operators in which it gets them right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._decomp import get_decompositions

from hashcompile.lower.terms import images, norms, numbers, places

aten = torch.ops.aten

# Rows of the importer's that take a symbolic size for a number, sort for a maximum, or leave something out; other terms
# do better, or there are none.
WEAK = frozenset(
    (
        "native_group_norm.default",
        "_native_batch_norm_legit.no_stats",
        "empty.memory_format",
        "empty_permuted.default",
        "full_like.default",
        "var.correction",
        "max.dim",
        "_upsample_bilinear2d_aa.default",
    )
)


def empty(size: list[int], *_: Any, dtype: torch.dtype | None = None, **__: Any) -> Tensor:
    """Zeros, in whatever order of dims."""
    return torch.full(size, 0, dtype=dtype or torch.get_default_dtype())


def full_like(x: Tensor, value: float, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    return torch.full(x.shape, value, dtype=dtype or x.dtype)


def addmm(bias: Tensor, x: Tensor, w: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    if alpha == 1 and beta == 1:
        return NotImplemented
    return (bias * beta if beta else 0) + torch.mm(x, w) * alpha


def trilinear(
    x: Tensor,
    y: Tensor,
    z: Tensor,
    new_x: list[int],
    new_y: list[int],
    new_z: list[int],
    summed: list[int],
    _: int = 1,
) -> Tensor:
    """The product of all three, each with new dims of length 1, summed over some."""
    factors = []
    for factor, new in ((x, new_x), (y, new_y), (z, new_z)):
        for dim in sorted(new):
            factor = factor.unsqueeze(dim)
        factors.append(factor)
    return (factors[0] * factors[1] * factors[2]).sum(summed)


# Of which the importer has rows that take floats alone.
OF_FLOATS = (
    aten.acos.default,
    aten.acosh.default,
    aten.asin.default,
    aten.asinh.default,
    aten.atan.default,
    aten.atanh.default,
    aten.cos.default,
    aten.cosh.default,
    aten.erf.default,
    aten.exp.default,
    aten.log.default,
    aten.log10.default,
    aten.log2.default,
    aten.reciprocal.default,
    aten.sigmoid.default,
    aten.sin.default,
    aten.sinh.default,
    aten.tan.default,
    aten.tanh.default,
)
# In PyTorch's own terms, before it tells them in others.
OWN = get_decompositions(
    [
        aten.grid_sampler_2d.default,
        aten.affine_grid_generator.default,
        aten.slice_scatter.default,
        aten.select_scatter.default,
    ]
)
# Before PyTorch tells them in its own terms, which the importer gets wrong.
EARLY: dict[Any, Callable[..., Any]] = {
    aten.instance_norm.default: norms.instance_norm,
    aten.floor_divide.default: numbers.floor_divide,
    **dict.fromkeys(
        (aten.remainder.Tensor, aten.remainder.Scalar, aten.remainder.Scalar_Tensor), numbers.remainder
    ),
    **{each: numbers.in_floats(each) for each in OF_FLOATS},
    aten.im2col.default: images.im2col,
    aten.col2im.default: images.col2im,
    aten.unfold.default: images.unfold,
    aten.index.Tensor: places.index,
    aten._unsafe_index.Tensor: places.unchecked_index,
    aten.index_put.default: places.index_put,
    aten.argmax.default: places.argmax,
    aten.argmin.default: places.argmin,
    aten.cumsum.default: numbers.running(aten.cumsum.default),
    aten.cumprod.default: numbers.running(aten.cumprod.default),
    aten.div.Tensor_mode: numbers.divide,
    aten.div.Scalar_mode: numbers.divide,
    aten.addmm.default: addmm,
    aten.elu.default: numbers.elu,
    aten.expm1.default: numbers.expm1,
    aten.log1p.default: numbers.log1p,
    aten.var_mean.correction: norms.variance_and_mean,
    aten.avg_pool2d.default: images.average_pool,
    aten.avg_pool3d.default: images.average_pool,
    aten.upsample_nearest2d.vec: images.nearest,
    aten.upsample_bilinear2d.vec: images.bilinear_image,
    aten.linalg_vector_norm.default: norms.vector_norm,
    **OWN,
}

DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.var.correction: norms.variance,
    aten.native_group_norm.default: norms.group_norm,
    aten._native_batch_norm_legit.no_stats: norms.own_batch_norm,
    aten.empty.memory_format: empty,
    aten.empty_permuted.default: empty,
    aten.empty_strided.default: empty,
    aten.full_like.default: full_like,
    aten.max.dim: places.max_dim,
    aten.min.dim: places.min_dim,
    aten.kthvalue.default: places.kthvalue,
    aten._cdist_forward.default: norms.cdist,
    aten.hypot.default: numbers.hypot,
    aten.erfc.default: numbers.erfc,
    aten.exp2.default: numbers.exp2,
    aten.sort.stable: places.stable_sort,
    aten._trilinear.default: trilinear,
    aten.rrelu_with_noise_functional.default: numbers.rrelu,
}


def decompositions(operators: set[Any]) -> dict[Any, Any]:
    """Of those of `operators` that have one: ours, else PyTorch's."""
    ours = {each: DECOMPOSITIONS[each] for each in operators & DECOMPOSITIONS.keys()}
    return {**get_decompositions([*operators - ours.keys()]), **ours}
