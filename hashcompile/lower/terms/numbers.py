"""Arithmetic and functions of numbers, as PyTorch has them at the edges of their types, too."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def of_one_type(*operands: Tensor | float) -> list[Tensor]:
    """Two numbers, which may be sizes, or tensors, in the type that PyTorch computes them in."""
    pair: Any = [each if isinstance(each, Tensor | float) else 1 for each in operands]
    kind = torch.result_type(*pair)
    return [
        each.to(kind) if isinstance(each, Tensor) else torch.full((), each, dtype=kind) for each in operands
    ]


def floats(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def in_floats(operator: Any) -> Callable[[Tensor], Tensor]:
    """`operator` of whole numbers and bools, of which it makes floats."""

    def of(x: Tensor) -> Tensor:
        return NotImplemented if x.is_floating_point() else operator(floats(x))

    return of


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


def divide(x: Tensor, y: Tensor | float, *, rounding_mode: str | None) -> Tensor:
    """Whole numbers have a row."""
    if rounding_mode is None:
        return torch.true_divide(x, y)
    first, second = of_one_type(x, y)
    if first.is_floating_point():
        return floor_divide(x, y) if rounding_mode == "floor" else torch.true_divide(x, y).trunc()
    return NotImplemented if isinstance(y, Tensor) else torch.div(first, second, rounding_mode=rounding_mode)


def running(operator: Any) -> Callable[..., Tensor]:
    """cumsum or cumprod, in the type of the result, which the importer leaves out for whole numbers and bools."""

    def of(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
        wanted = dtype or (x.dtype if x.is_floating_point() else torch.int64)
        return NotImplemented if wanted == x.dtype else operator(x.to(wanted), dim)

    return of


def hypot(x: Tensor, y: Tensor) -> Tensor:
    """Of numbers whose squares are none, too."""
    x, y = x.abs(), y.abs()
    more, less = torch.where(x > y, x, y), torch.where(x > y, y, x)
    ratio = less / torch.where(more == 0, 1, more)
    return torch.where(x.isinf() | y.isinf(), torch.inf, more * (1 + ratio * ratio).sqrt())


def exp2(x: Tensor) -> Tensor:
    return 2.0 ** floats(x)


def expm1(x: Tensor) -> Tensor:
    """Of small x, too, where the importer's exp(x) - 1 has nothing of it left."""
    x = floats(x)
    y = x.exp()
    ratio = x / torch.where((y == 1) | y.isinf() | (y == 0), 1, y.log())  # 1, but for the rounding of y
    return torch.where(y == 1, x, torch.where(y.isinf() | (y == 0), y - 1, (y - 1) * ratio))


def log1p(x: Tensor) -> Tensor:
    """Of small x, too, where the importer's log(1 + x) has nothing of it left; TVM makes x of (1 + x) - 1."""
    x = floats(x)
    half = x / torch.where(x.abs() < 0.03, 2 + x, 1)
    square = half * half
    series = (
        2 * half * (1 + square * (1 / 3 + square * (1 / 5 + square * (1 / 7 + square / 9))))
    )  # 2 artanh(half)
    return torch.where(x.abs() < 0.03, series, (1 + x).log())


def elu(x: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Tensor:
    return torch.where(x > 0, x * scale, ((x * input_scale).exp() - 1) * (alpha * scale))


def rrelu(
    x: Tensor, noise: Tensor, low: float = 1 / 8, high: float = 1 / 3, *_: Any
) -> tuple[Tensor, Tensor]:
    """In inference, where the slope is the mean one."""
    return torch.where(x > 0, x, x * ((low + high) / 2)), noise


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
