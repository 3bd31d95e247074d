"""The ridge of a layer's least squares: none for what can be told, much for what cannot."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hashcompile.ridge import MOST, ROUNDING, LeastSquares
from hashcompile.shrinkage import noise_share

K, K0, N = 8, 12, 5


def drawn(samples: int, noise: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """X0 (samples, K0), which is mostly told by X (samples, K); rows (N, K0) and a prior (N, K)."""
    torch.manual_seed(seed)
    x = torch.randn(samples, K).double()
    torch.manual_seed(99)
    told, rows = torch.randn(K0, K).double(), torch.randn(N, K0).double()
    torch.manual_seed(seed + 1000)
    old = x @ told.T + noise * torch.randn(samples, K0)
    return old, x, rows, rows @ told * torch.tensor([0.5, 1.5] * 4)


def system(old: Tensor, x: Tensor) -> LeastSquares:
    return LeastSquares(x.T @ x, old.T @ x, old.T @ old, len(x))


def test_is_that_of_hoerl_kennard_and_baldwin() -> None:
    old, x, rows, prior = drawn(200, 1.0)
    gap = old @ rows.T - x @ prior.T
    move = torch.linalg.lstsq(x, gap).solution
    unexplained = (gap - x @ move).square().sum() * 200 / (200 - K)
    ridge = K / 200 * unexplained / (gap.square().sum() - unexplained)
    assert 0.001 < ridge < noise_share((x.T @ x)[None], 200)
    assert system(old, x).ridge(rows, prior) == pytest.approx(float(ridge), rel=1e-3)


@pytest.mark.parametrize("samples", [K + 1, 1000])
def test_what_is_told_exactly_needs_none(samples: int) -> None:
    """Though the gram of a few samples of white inputs is all noise."""
    old, x, rows, prior = drawn(samples, 0.0)
    assert system(old, x).ridge(rows, prior) == ROUNDING
    found = system(old, x).solve(rows, prior)
    torch.testing.assert_close(x @ found.T, old @ rows.T, rtol=1e-3, atol=1e-3)


def test_no_more_samples_than_inputs_tell_no_noise() -> None:
    old, x, rows, prior = drawn(K, 0.0)
    share = float(noise_share((x.T @ x)[None], K))
    assert system(old, x).ridge(rows, prior) == pytest.approx(
        min(share / (1 - share) if share < 1 else MOST, MOST)
    )
    old, x, rows, prior = drawn(1, 0.0)
    assert torch.equal(system(old, x).about(1, x[0], old[0]).solve(rows, prior), prior)


def test_what_nothing_tells_stays_with_the_prior() -> None:
    """Which is right."""
    old, x, rows, _ = drawn(40, 0.0)
    right = torch.linalg.lstsq(x, old @ rows.T).solution.T
    torch.manual_seed(5)
    noisy = system(old + torch.randn(40, K0), x)
    assert noisy.ridge(rows, right) > 1


def test_serves_fresh_samples_better_than_none_does() -> None:
    gained = []
    for seed in range(20):
        old, x, rows, prior = drawn(14, 3.0, seed)
        fresh, inputs, *_ = drawn(2000, 3.0, seed + 50)
        errors = []
        for solved in (system(old, x).solve(rows, prior), torch.linalg.lstsq(x, old @ rows.T).solution.T):
            errors.append(float((fresh @ rows.T - inputs @ solved.T).square().sum()))
        gained.append(errors[0] / errors[1])
    assert sorted(gained)[10] < 0.95


def test_means_are_taken_from_all_moments() -> None:
    old, x, rows, prior = drawn(60, 1.0)
    old, x = old + 3, x - 2
    about = system(old, x).about(60, x.mean(0), old.mean(0))
    far, near = old - old.mean(0), x - x.mean(0)
    for got, wanted in (
        (about.gram, near.T @ near),
        (about.cross, far.T @ near),
        (about.before, far.T @ far),
    ):
        torch.testing.assert_close(got, wanted)
    assert about.samples == 59
    assert about.least == pytest.approx(float(ROUNDING * (x.square().sum() / near.square().sum())))
    assert about.ridge(rows, prior) > about.least
