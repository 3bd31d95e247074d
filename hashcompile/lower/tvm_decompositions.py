"""Operators that TVM's importer lacks, or gets wrong, in the terms of other operators."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._decomp import get_decompositions
from torch.nn import functional

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


def max_dim(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return x.amax(dim, keepdim), numbers(x).argmax(dim, keepdim)


def min_dim(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return x.amin(dim, keepdim), numbers(x).argmin(dim, keepdim)


def numbers(x: Tensor) -> Tensor:
    """Of bools, which TVM does not order."""
    return x.to(torch.int8) if x.dtype == torch.bool else x


def kthvalue(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    found = [every.narrow(dim, k - 1, 1) for every in x.sort(dim)]
    values, indices = found if keepdim else (each.squeeze(dim) for each in found)
    return values, indices


def cdist(x: Tensor, y: Tensor, p: float, _mode: int | None) -> Tensor:
    return torch.linalg.vector_norm(x.unsqueeze(-2) - y.unsqueeze(-3), p, -1)


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


def floor_divide(x: Tensor, y: Tensor | float) -> Tensor:
    """As Python has it: of the quotient that is left when the remainder is taken off, which 1.0 // 0.1 needs."""
    x, y = of_one_type(x, y)
    if not x.is_floating_point():
        return torch.div(x, y, rounding_mode="floor")
    rest = torch.fmod(x, y)
    quotient = (x - rest) / y
    quotient = torch.where(rest.sign() * y.sign() < 0, quotient - 1, quotient)
    whole = quotient.floor()  # it is one, but for its rounding
    return torch.where(y == 0, x / y, torch.where(quotient - whole > 0.5, whole + 1, whole))


def remainder(x: Tensor | float, y: Tensor | float) -> Tensor:
    """Of what is no whole number: with the sign of `y`, and exact, which x - floor(x / y) * y is not."""
    first, second = of_one_type(x, y)
    if not first.is_floating_point():
        return NotImplemented if isinstance(x, Tensor) else torch.remainder(first, y)
    rest = torch.fmod(first, second)
    return torch.where(rest.sign() * second.sign() < 0, rest + second, rest)


def of_one_type(*operands: Tensor | float) -> list[Tensor]:
    """Two numbers, which may be sizes, or tensors, in the type that PyTorch computes them in."""
    pair: Any = [each if isinstance(each, Tensor | float) else 1 for each in operands]
    kind = torch.result_type(*pair)
    return [
        each.to(kind) if isinstance(each, Tensor) else torch.full((), each, dtype=kind) for each in operands
    ]


def in_floats(operator: Any) -> Callable[[Tensor], Tensor]:
    """`operator` of whole numbers and bools, of which it makes floats."""

    def of(x: Tensor) -> Tensor:
        return NotImplemented if x.is_floating_point() else operator(floats(x))

    return of


def floats(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


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


def empty(size: list[int], *_: Any, dtype: torch.dtype | None = None, **__: Any) -> Tensor:
    """Zeros, in whatever order of dims."""
    return torch.full(size, 0, dtype=dtype or torch.get_default_dtype())


def full_like(x: Tensor, value: float, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    return torch.full(x.shape, value, dtype=dtype or x.dtype)


def hypot(x: Tensor, y: Tensor) -> Tensor:
    """Of numbers whose squares are none, too."""
    x, y = x.abs(), y.abs()
    more, less = torch.where(x > y, x, y), torch.where(x > y, y, x)
    ratio = less / torch.where(more == 0, 1, more)
    return torch.where(x.isinf() | y.isinf(), torch.inf, more * (1 + ratio * ratio).sqrt())


# W. J. Cody, Rational Chebyshev approximations for the error function, Math. Comp. 23 (1969), with s = 1 / y**2:
# NEAR(y) = exp(y**2) erfc(y) for y from 0.46875 to 4, and FAR(s) = (1 / sqrt(pi) - y exp(y**2) erfc(y)) / s beyond.
# Numerator and denominator, the highest power first.
NEAR = (
    (
        2.15311535474403846e-8,
        5.64188496988670089e-1,
        8.88314979438837594,
        6.61191906371416295e1,
        2.98635138197400131e2,
        8.81952221241769090e2,
        1.71204761263407058e3,
        2.05107837782607147e3,
        1.23033935479799725e3,
    ),
    (
        1.0,
        1.57449261107098347e1,
        1.17693950891312499e2,
        5.37181101862009858e2,
        1.62138957456669019e3,
        3.29079923573345963e3,
        4.36261909014324716e3,
        3.43936767414372164e3,
        1.23033935480374942e3,
    ),
)
FAR = (
    (
        1.63153871373020978e-2,
        3.05326634961232344e-1,
        3.60344899949804439e-1,
        1.25781726111229246e-1,
        1.60837851487422766e-2,
        6.58749161529837803e-4,
    ),
    (
        1.0,
        2.56852019228982242,
        1.87295284992346725,
        5.27905102951428412e-1,
        6.05183413124413191e-2,
        2.33520497626869185e-3,
    ),
)


def erfc(x: Tensor) -> Tensor:
    """1 - erf(x), of large x, too, where nothing is left of that."""
    x = floats(x)
    y = x.abs()
    y = torch.where(y > 30, 30, y)  # 0 from there on, in every type
    inverse = 1 / torch.where(y < 1, 1, y * y)
    far = (1 / math.sqrt(math.pi) - inverse * fraction(FAR, inverse)) / torch.where(y < 1, 1, y)
    steps = (y * 16).floor() / 16  # whose square has no rounding that exp would make large
    tail = (-steps * steps).exp() * ((steps - y) * (steps + y)).exp()
    tail = tail * torch.where(y > 4, far, fraction(NEAR, torch.where(y > 4, 4, y)))
    return torch.where(y < 0.5, 1 - x.erf(), torch.where(x < 0, 2 - tail, tail))


def fraction(polynomials: tuple[Sequence[float], Sequence[float]], x: Tensor) -> Tensor:
    numerator, denominator = (
        functools.reduce(lambda sum_, each: sum_ * x + each, rest, x * first + second)
        for first, second, *rest in polynomials
    )
    return numerator / denominator


def exp2(x: Tensor) -> Tensor:
    return 2.0 ** floats(x)


def rrelu(
    x: Tensor, noise: Tensor, low: float = 1 / 8, high: float = 1 / 3, *_: Any
) -> tuple[Tensor, Tensor]:
    """In inference, where the slope is the mean one."""
    return torch.where(x > 0, x, x * ((low + high) / 2)), noise


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


def unfold(x: Tensor, dim: int, size: int, step: int) -> Tensor:
    """Windows along `dim`, which may share values; their values become the last dim."""
    dim %= x.ndim
    count = (x.shape[dim] - size) // step + 1
    places = (torch.arange(count)[:, None] * step + torch.arange(size)).flatten()
    return x.index_select(dim, places).unflatten(dim, (count, size)).movedim(dim + 1, -1)


def index(x: Tensor, indices: list[Tensor | None]) -> Tensor:
    """By tensors in some dims: their places are told by one number each, in the dims put in front and made one. The
    importer takes places from the end for others, and has other orders of dims.
    """
    places = [(dim, at) for dim, at in enumerate(indices) if at is not None]
    if any(at.dtype in (torch.bool, torch.uint8) for _, at in places):
        return NotImplemented
    dims = [dim for dim, _ in places]
    if adjacent(dims) and all(
        at.ndim and at.shape[1:] == (1,) * (dims[-1] - dim) for dim, at in places
    ):  # rows, columns of them, ...
        for dim, at in places:
            x = x.index_select(dim, from_front(at.flatten(), x.shape[dim]))
        return x
    order, first, number = numbered(x, places)
    found = x.permute(order).flatten(0, len(dims) - 1).index_select(0, number.flatten())
    found = found.reshape(*number.shape, *(x.shape[dim] for dim in order[len(dims) :]))
    return found.movedim(*reversed(dims_of(number, first)))


def numbered(x: Tensor, places: list[tuple[int, Tensor]]) -> tuple[list[int], int, Tensor]:
    """The dims of `x` with those of `places` in front; the dim from which on what lies at these has theirs; and their
    numbers in the dims in front, made one.
    """
    dims = [dim for dim, _ in places]
    number: Any = 0
    for dim, at in places:
        number = number * x.shape[dim] + from_front(at, x.shape[dim])
    first = dims[0] if adjacent(dims) else 0
    return [*dims, *(dim for dim in range(x.ndim) if dim not in dims)], first, number


def adjacent(dims: list[int]) -> bool:
    return dims[-1] - dims[0] < len(dims)


def dims_of(number: Tensor, first: int) -> tuple[list[int], list[int]]:
    """Those of `number` from `first` on, and in front."""
    return list(range(first, first + number.ndim)), list(range(number.ndim))


def unchecked_index(x: Tensor, indices: list[Tensor | None]) -> Tensor:
    return aten.index.Tensor(x, indices)


def index_put(x: Tensor, indices: list[Tensor | None], values: Tensor, accumulate: bool = False) -> Tensor:
    """At places, told by one number each: the importer reads values as if there were one for every place. Where a mask
    says so, the same values for all that it tells.
    """
    places = [(dim, at) for dim, at in enumerate(indices) if at is not None]
    if any(at.dtype in (torch.bool, torch.uint8) for _, at in places):
        return put_where(x, places, values, accumulate) if len(places) == 1 else NotImplemented
    order, first, number = numbered(x, places)
    rest = [x.shape[dim] for dim in order[len(places) :]]
    every = values.expand(*rest[:first], *number.shape, *rest[first:]).movedim(*dims_of(number, first))
    rows = x.permute(order).reshape(-1, prod(rest))
    parts = every.reshape(number.numel(), prod(rest))
    put = aten.scatter_add.default if accumulate else aten.scatter.src
    made = put(rows, 0, number.reshape(-1, 1).expand(parts.shape), parts)
    made = made.reshape([x.shape[dim] for dim in order])
    return made.permute([order.index(dim) for dim in range(x.ndim)])


def put_where(x: Tensor, places: list[tuple[int, Tensor]], values: Tensor, accumulate: bool) -> Tensor:
    ((dim, mask),) = places
    behind = x.ndim - dim - mask.ndim
    if values.ndim > behind:
        return NotImplemented
    told = mask.to(torch.bool).reshape(*mask.shape, *[1] * behind)
    return torch.where(told, x + values if accumulate else values, x)


def from_front(places: Tensor, size: int) -> Tensor:
    """Places that may count from the end."""
    return torch.where(places < 0, places + size, places)


def running(operator: Any) -> Callable[..., Tensor]:
    """cumsum or cumprod, in the type of the result, which the importer leaves out for whole numbers and bools."""

    def of(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
        wanted = dtype or (x.dtype if x.is_floating_point() else torch.int64)
        return NotImplemented if wanted == x.dtype else operator(x.to(wanted), dim)

    return of


def divide(x: Tensor, y: Tensor | float, *, rounding_mode: str | None) -> Tensor:
    """Whole numbers have a row."""
    if rounding_mode is None:
        return torch.true_divide(x, y)
    first, second = of_one_type(x, y)
    if first.is_floating_point():
        return floor_divide(x, y) if rounding_mode == "floor" else torch.true_divide(x, y).trunc()
    return NotImplemented if isinstance(y, Tensor) else torch.div(first, second, rounding_mode=rounding_mode)


def addmm(bias: Tensor, x: Tensor, w: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    if alpha == 1 and beta == 1:
        return NotImplemented
    return (bias * beta if beta else 0) + torch.mm(x, w) * alpha


def elu(x: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Tensor:
    return torch.where(x > 0, x * scale, ((x * input_scale).exp() - 1) * (alpha * scale))


def expm1(x: Tensor) -> Tensor:
    """Of small x, too, where the importer's exp(x) - 1 has nothing of it left."""
    x = floats(x)
    y = x.exp()
    ratio = x / torch.where((y == 1) | y.isinf() | (y == 0), 1, y.log())  # 1, but for the rounding of y
    return torch.where(y == 1, x, torch.where(y.isinf() | (y == 0), y - 1, (y - 1) * ratio))


def log1p(x: Tensor) -> Tensor:
    """Of small x, too, where the importer's log(1 + x) has nothing of it left; TVM makes x of (1 + x) - 1."""
    x = floats(x)
    series = x * (1 - x * (1 / 2 - x * (1 / 3 - x / 4)))
    return torch.where(x.abs() < 0.03, series, (1 + x).log())


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


def stable_sort(
    x: Tensor, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[Tensor, Tensor]:
    """TVM's is."""
    return aten.sort.default(x, dim, descending)


def variance_and_mean(
    x: Tensor, dims: list[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    return variance(x, dims, correction=correction, keepdim=keepdim), x.mean(
        dims or list(range(x.ndim)), keepdim
    )


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
    aten.instance_norm.default: instance_norm,
    aten.floor_divide.default: floor_divide,
    **dict.fromkeys((aten.remainder.Tensor, aten.remainder.Scalar, aten.remainder.Scalar_Tensor), remainder),
    **{each: in_floats(each) for each in OF_FLOATS},
    aten.im2col.default: im2col,
    aten.col2im.default: col2im,
    aten.unfold.default: unfold,
    aten.index.Tensor: index,
    aten._unsafe_index.Tensor: unchecked_index,
    aten.index_put.default: index_put,
    aten.cumsum.default: running(aten.cumsum.default),
    aten.cumprod.default: running(aten.cumprod.default),
    aten.div.Tensor_mode: divide,
    aten.div.Scalar_mode: divide,
    aten.addmm.default: addmm,
    aten.elu.default: elu,
    aten.expm1.default: expm1,
    aten.log1p.default: log1p,
    aten.var_mean.correction: variance_and_mean,
    aten.avg_pool2d.default: average_pool,
    aten.avg_pool3d.default: average_pool,
    aten.upsample_nearest2d.vec: nearest,
    aten.upsample_bilinear2d.vec: bilinear_image,
    aten.linalg_vector_norm.default: vector_norm,
    **OWN,
}

DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.var.correction: variance,
    aten.native_group_norm.default: group_norm,
    aten._native_batch_norm_legit.no_stats: own_batch_norm,
    aten.empty.memory_format: empty,
    aten.empty_permuted.default: empty,
    aten.empty_strided.default: empty,
    aten.full_like.default: full_like,
    aten.max.dim: max_dim,
    aten.min.dim: min_dim,
    aten.kthvalue.default: kthvalue,
    aten._cdist_forward.default: cdist,
    aten.hypot.default: hypot,
    aten.erfc.default: erfc,
    aten.exp2.default: exp2,
    aten.sort.stable: stable_sort,
    aten._trilinear.default: trilinear,
    aten.rrelu_with_noise_functional.default: rrelu,
}


def decompositions(operators: set[Any]) -> dict[Any, Any]:
    """Of those of `operators` that have one: ours, else PyTorch's."""
    ours = {each: DECOMPOSITIONS[each] for each in operators & DECOMPOSITIONS.keys()}
    return {**get_decompositions([*operators - ours.keys()]), **ours}
