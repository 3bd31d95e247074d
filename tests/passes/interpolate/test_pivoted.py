"""Pivots from a gram, against QR written out, and projections by least squares."""

from __future__ import annotations

import pytest
import torch

from hashcompile.passes.interpolate.pivoted import pivoted


def activations(samples: int, units: int, rank: int, noise: float = 0.0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(11)
    shapes = ((samples, rank), (rank, units))
    left, right = (torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in shapes)
    return left @ right + noise * torch.randn(samples, units, generator=draw, dtype=torch.float64)


def householder(values: torch.Tensor) -> list[int]:
    """Pivots of QR with column pivoting, on the columns themselves."""
    left, order = values.clone(), []
    for _ in range(values.shape[1]):
        best = int(left.square().sum(0).argmax())
        order.append(best)
        axis = left[:, best] / left[:, best].norm()
        left = left - axis[:, None] * (axis @ left)[None]
        left[:, order] = 0
    return order


@pytest.mark.parametrize("units", [1, 2, 17])
def test_are_those_of_the_qr_decomposition(units: int) -> None:
    values = activations(60, units, units)
    found = pivoted(values.T @ values)
    assert found.order.tolist() == householder(values)
    total = values.square().sum()
    for width in range(units + 1):
        basis = values[:, found.order[:width]]
        rest = values - basis @ torch.linalg.lstsq(basis, values).solution if width else values
        torch.testing.assert_close(found.residual[width], rest.square().sum() / total, rtol=1e-6, atol=1e-12)


def test_the_tolerance_is_the_relative_error() -> None:
    values = activations(200, 20, 6, noise=0.01)
    found = pivoted(values.T @ values)
    for tolerance in (0.5, 0.1, 0.02, 0.001):
        width = found.width(tolerance)
        errors = []
        for few in (width, width - 1):
            basis = values[:, found.order[:few]]
            rest = values - (basis @ torch.linalg.lstsq(basis, values).solution if few else 0)
            errors.append(float(rest.norm() / values.norm()))
        assert errors[0] <= tolerance < errors[1]


def test_exact_rank_is_found() -> None:
    values = activations(50, 12, 4)
    found = pivoted(values.T @ values)
    assert found.width(1e-6) == 4
    assert sorted(found.order.tolist()) == list(range(12))


def test_silent_units_come_last_and_nothing_needs_nobody() -> None:
    values = activations(30, 5, 5)
    values[:, [1, 3]] = 0
    found = pivoted(values.T @ values)
    assert set(found.order[3:].tolist()) == {1, 3}
    assert found.width(1e-6) == 3
    assert pivoted(torch.zeros(4, 4)).width(0.1) == 0
    assert pivoted(torch.zeros(0, 0)).width(0.1) == 0


def test_copies_count_once() -> None:
    values = activations(30, 3, 3)[:, [0, 1, 0, 2, 1, 0]]
    assert pivoted(values.T @ values).width(1e-6) == 3
