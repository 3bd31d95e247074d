"""The values of a hashed weight: those whose decoded rows lose least, by least squares.

With W (N, K) the trained rows, D = A v the decoded ones (A is linear: it copies every value, with its signs, to the
places of its bucket), and H the gram of the inputs,

    E(v) = sum_n importance[n] (W - A v)[n] H (W - A v)[n]'     is least where     A'(importance (W - A v) H) = 0

For a diagonal H the buckets know nothing of one another: each takes the weighted mean of its weights. Otherwise that is
where conjugate gradients start, with the diagonal of A'HA for a preconditioner; A'HA itself is never formed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from hashcompile.core.errors import CalibrationError, WeightError
from hashcompile.core.parallel import deterministic_map, one_thread

CHUNK = 512  # rows of each set that are worked on together: part of the result's definition


def fit_values(
    rows: Tensor,
    index: Tensor,
    count: int,
    *,
    gram: Tensor | None = None,
    importance: Tensor | None = None,
    damping: float = 0.01,
    steps: int = 100,
    enough: float = 1e-5,
) -> Tensor:
    """The best values (count,) float32 for `rows: (N, K)`; 0 for a bucket without weights.

    Args:
        index: (N, K) integers into (values, -values).
        gram: (S, K, K), X'X of the inputs of each of S equal sets of consecutive rows; None fits the weights alone.
        importance: (N,), how much the error of each row counts; None for 1.
        damping: ridge on the grams as a share of their mean diagonal, for inputs that calibration did not show.
        steps: most steps of conjugate gradients, which end once one of them gains less than `enough` of E.

    The result is bit-identical for every number of threads. Raises WeightError, CalibrationError.
    """
    check(rows, gram)
    with one_thread():
        mean = 0.0 if gram is None else float(gram.diagonal(dim1=1, dim2=2).double().mean())
        if gram is None or not mean > 0:
            form = torch.ones(1, rows.shape[1], dtype=torch.float64)
        else:
            form = gram.double() / mean + damping * torch.eye(rows.shape[1], dtype=torch.float64)
        problem = _Problem(rows, index, count, form, importance)
        values = problem.means()
        return (values if form.ndim == 2 else _descend(problem, values, steps, enough)).float()


def sample_values(rows: Tensor, index: Tensor, count: int, seed: int) -> Tensor:
    """One of the weights of each bucket, drawn at random, with its sign in it: (count,) float32; 0 without weights.

    Raises WeightError.
    """
    check(rows, None)
    order = torch.randperm(rows.numel(), generator=torch.Generator().manual_seed(seed))
    place = index.flatten()[order].long()
    first = torch.full((count,), len(order)).scatter_reduce(
        0, place % count, torch.arange(len(order)), "amin"
    )
    signed = torch.where(place < count, 1.0, -1.0) * rows.flatten()[order]
    return torch.cat([signed, signed.new_zeros(1)])[first].float()


def size_of(rows: Tensor) -> Tensor:
    """The root mean square of `rows`, float32; 1 where they are zero."""
    size = rows.double().square().mean().sqrt()
    return torch.where(size > 0, size, 1.0).float()


def best_gain(rows: Tensor, decoded: Tensor, gram: Tensor | None) -> float:
    """The factor of `decoded: (N, K)` that brings its outputs closest to those of `rows`; 1 where there is nothing."""
    sets = (1 if gram is None else len(gram), -1, rows.shape[1])
    w, d = rows.double().reshape(sets), decoded.double().reshape(sets)
    seen = d if gram is None else d @ gram
    square = float((seen * d).sum())
    return float((seen * w).sum()) / square if square > 0 else 1.0


def check(rows: Tensor, gram: Tensor | None) -> None:
    """Raise WeightError, CalibrationError for what is no number."""
    if not torch.isfinite(rows).all():
        raise WeightError(f"weights of shape {tuple(rows.shape)} hold NaN or infinite values: nothing to fit")
    if gram is not None and not torch.isfinite(gram).all():
        raise CalibrationError("calibration gave inputs that are NaN or infinite; check the calibration data")


class _Problem:
    """E, cut into pieces that are worked on side by side. Each holds (S, n, K): n rows of every set."""

    def __init__(
        self, rows: Tensor, index: Tensor, count: int, form: Tensor, importance: Tensor | None
    ) -> None:
        sets = (len(form), -1, rows.shape[1])
        weight = torch.ones(len(rows)) if importance is None else importance
        self.count = count
        self.form = form  # (S, K, K), or the diagonals: (S, K)
        self.rows = rows.double().reshape(sets).split(CHUNK, 1)
        self.index = index.reshape(sets).split(CHUNK, 1)
        self.importance = weight.double().reshape(len(form), -1, 1).split(CHUNK, 1)

    def spread(self, values: Tensor, piece: int) -> Tensor:
        """A v: (S, n, K)."""
        index = self.index[piece]
        return torch.cat([values, -values]).index_select(0, index.flatten()).view(index.shape)

    def collect(self, of: Callable[[int], Tensor]) -> Tensor:
        """A' of what `of` gives for each piece: (count,)."""

        def sums(piece: int) -> Tensor:
            total = torch.zeros(2 * self.count, dtype=torch.float64)
            total.index_add_(0, self.index[piece].flatten(), of(piece).flatten())
            return total[: self.count] - total[self.count :]

        return functools.reduce(torch.add, deterministic_map(sums, range(len(self.rows))))

    def steepness(self) -> Tensor:
        """The diagonal of A'HA: (count,). What is summed has no sign, so A' may not give it one."""
        diagonal = self.form if self.form.ndim == 2 else self.form.diagonal(dim1=1, dim2=2)
        ones = torch.ones(self.count, dtype=torch.float64)
        return self.collect(lambda i: self.spread(ones, i) * diagonal[:, None] * self.importance[i])

    def means(self) -> Tensor:
        """The best values for the diagonal of H: (count,)."""
        diagonal = self.form if self.form.ndim == 2 else self.form.diagonal(dim1=1, dim2=2)
        total = self.collect(lambda i: self.rows[i] * diagonal[:, None] * self.importance[i])
        steepness = self.steepness()
        return torch.where(steepness > 0, total / steepness, 0.0)

    def slope(self, values: Tensor) -> Tensor:
        """-1/2 dE / dv: (count,)."""
        return self.collect(
            lambda i: (self.rows[i] - self.spread(values, i)) @ self.form * self.importance[i]
        )

    def bend(self, direction: Tensor) -> Tensor:
        """A'HA times `direction`: (count,)."""
        return self.collect(lambda i: self.spread(direction, i) @ self.form * self.importance[i])

    def error(self, values: Tensor) -> float:
        """E."""

        def part(i: int) -> Tensor:
            gap = self.rows[i] - self.spread(values, i)
            return (gap @ self.form * gap * self.importance[i]).sum()

        return float(torch.stack(deterministic_map(part, range(len(self.rows)))).sum())


def _descend(problem: _Problem, values: Tensor, steps: int, enough: float) -> Tensor:
    """Conjugate gradients from `values`."""
    steepness = problem.steepness()
    inverse = torch.where(steepness > 0, 1 / steepness, 0.0)
    error, slope = problem.error(values), problem.slope(values)
    direction = inverse * slope
    fall = slope @ direction
    for _ in range(steps):
        bend = problem.bend(direction)
        curvature = direction @ bend
        if not curvature > 0:
            break
        length = fall / curvature
        values = values + length * direction
        gain = float(length * fall)
        if gain <= enough * error:
            break
        error -= gain
        slope = slope - length * bend
        ahead = slope @ (inverse * slope)
        direction = inverse * slope + ahead / fall * direction
        fall = ahead
    return values
