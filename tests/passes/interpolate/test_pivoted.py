"""Pivots from grams and the weights that read them, against every choice tried out by least squares."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hashcompile.passes.interpolate.pivoted import FIRM, View, pivoted


def activations(samples: int, units: int, rank: int, noise: float = 0.0, seed: int = 11) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    shapes = ((samples, rank), (rank, units))
    left, right = (torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in shapes)
    return left @ right + noise * torch.randn(samples, units, generator=draw, dtype=torch.float64)


def weights(rows: int, units: int, seed: int = 5) -> Tensor:
    return torch.randn(rows, units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def view(values: Tensor, rows: Tensor | None = None) -> View:
    rows = torch.eye(values.shape[1], dtype=torch.float64) if rows is None else rows
    return View(values.T @ values, rows.T @ rows)


def lost(values: Tensor, rows: Tensor, kept: list[int]) -> float:
    """Squared relative error of a layer's outputs, its inputs told from those in `kept` by least squares."""
    basis = values[:, kept]
    rest = values - (basis @ torch.linalg.lstsq(basis, values).solution if kept else 0)
    return float((rest @ rows.T).square().sum() / (values @ rows.T).square().sum())


@settings(max_examples=25, deadline=None, derandomize=True)
@given(units=st.integers(1, 9), readers=st.integers(1, 3), seed=st.integers(0, 1000))
def test_the_residual_is_what_the_readers_lose(units: int, readers: int, seed: int) -> None:
    seen = [
        (activations(40, units, units, seed=seed + i), weights(4, units, seed + 7 * i))
        for i in range(readers)
    ]
    found = pivoted([view(*each) for each in seen], units)
    assert sorted(found.order.tolist()) == list(range(units))
    for width in range(units + 1):
        kept = found.order[:width].tolist()
        expected = sum(lost(*each, kept) for each in seen) / readers
        assert float(found.residual[width]) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert bool((found.residual.diff() <= 1e-12).all())


@pytest.mark.parametrize("seed", range(4))
def test_every_pivot_is_the_best_next_one(seed: int) -> None:
    values, rows = activations(50, 8, 8, seed=seed), weights(3, 8, seed)
    order = pivoted([view(values, rows)], 8).order.tolist()
    for width in range(3):
        before = lost(values, rows, order[:width])
        gains = []
        for unit in range(8):
            basis = values[:, order[:width]]
            column = values[:, unit]
            left = (
                column - (basis @ torch.linalg.lstsq(basis, column[:, None]).solution)[:, 0]
                if width
                else column
            )
            own = float(left.square().sum())
            firm = FIRM * float(values.square().sum(0).mean())
            gains.append((before - lost(values, rows, [*order[:width], unit])) * own / (own + firm))
        gains = [-1.0 if unit in order[:width] else gain for unit, gain in enumerate(gains)]
        assert order[width] == max(range(8), key=gains.__getitem__)


def test_what_nobody_reads_is_needed_last() -> None:
    values, rows = torch.linalg.qr(activations(60, 6, 6)).Q, weights(4, 6)
    values[:, 2] *= 3
    rows[:, [2, 4]] = 0
    found = pivoted([view(values, rows)], 6)
    assert set(found.order[4:].tolist()) == {2, 4}
    assert found.width(1e-6) == 4
    other = view(values, torch.eye(6, dtype=torch.float64))
    assert int(pivoted([other], 6).order[0]) == 2


def test_each_reader_has_one_vote() -> None:
    """However large its weights and however many samples it sees."""
    first, second = (
        view(activations(50, 7, 7), weights(3, 7)),
        view(activations(30, 7, 7, seed=2), weights(9, 7, 2)),
    )
    loud = View(second.gram * 1e6, second.metric * 1e4)
    assert torch.equal(pivoted([first, second], 7).order, pivoted([first, loud], 7).order)


def test_the_tolerance_is_the_relative_error() -> None:
    values = activations(200, 20, 6, noise=0.01)
    rows = weights(20, 20)
    found = pivoted([view(values, rows)], 20)
    for tolerance in (0.5, 0.1, 0.02):
        width = found.width(tolerance)
        errors = [lost(values, rows, found.order[:few].tolist()) ** 0.5 for few in (width, width - 1)]
        assert errors[0] <= tolerance < errors[1]


def test_exact_rank_is_found() -> None:
    found = pivoted([view(activations(50, 12, 4))], 12)
    assert found.width(1e-6) == 4
    assert sorted(found.order.tolist()) == list(range(12))


def test_silent_units_come_last_and_nothing_needs_nobody() -> None:
    values = activations(30, 5, 5)
    values[:, [1, 3]] = 0
    found = pivoted([view(values)], 5)
    assert set(found.order[3:].tolist()) == {1, 3}
    assert found.width(1e-6) == 3
    nothing = View(torch.zeros(4, 4), torch.ones(4, 4))
    assert pivoted([nothing], 4).width(0.1) == 0
    assert pivoted([View(torch.zeros(0, 0), torch.zeros(0, 0))], 0).width(0.1) == 0


def test_copies_count_once() -> None:
    values = activations(30, 3, 3)[:, [0, 1, 0, 2, 1, 0]]
    assert pivoted([view(values)], 6).width(1e-6) == 3
