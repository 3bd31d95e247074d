"""k-means on a line: the optimum, found by other means, and odd inputs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashcompile.core import kmeans
from hashcompile.core.kmeans import kmeans_1d


def cost(values: np.ndarray, weights: np.ndarray, centroids: np.ndarray) -> float:
    """sum_i weights[i] * min_j (values[i] - centroids[j])^2."""
    return float((weights * ((values[:, None] - centroids) ** 2).min(1)).sum())


def least_cost(values: np.ndarray, weights: np.ndarray, k: int) -> float:
    """The optimum by trying every cut of the sorted values into k runs."""
    order = np.argsort(values)
    values, weights = values[order], weights[order]
    best = np.inf
    for cuts in combinations(range(1, values.size), k - 1):
        runs = zip((0, *cuts), (*cuts, values.size), strict=True)
        total = 0.0
        for i, j in runs:
            if weights[i:j].sum() > 0:
                mean = np.average(values[i:j], weights=weights[i:j])
                total += float((weights[i:j] * (values[i:j] - mean) ** 2).sum())
        best = min(best, total)
    return best


def quadratic_optimum(values: np.ndarray, weights: np.ndarray, k: int) -> float:
    """The optimum by the textbook O(k n^2) dynamic programme, with costs summed afresh for each run."""
    values, weights = values[np.argsort(values)], weights[np.argsort(values)]
    n = values.size
    run = np.zeros((n + 1, n + 1))
    for i in range(n):
        w, x, xx = (np.cumsum(weights[i:] * values[i:] ** power) for power in (0, 1, 2))
        run[i, i + 1 :] = xx - x * x / w
    best = run[0].copy()
    best[0] = np.inf
    for _ in range(k - 1):
        best = np.array([np.inf, *((best[:e] + run[:e, e]).min() for e in range(1, n + 1))])
    return float(best[n])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_small_inputs_reach_the_brute_force_optimum(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 9))
    k = data.draw(st.integers(1, n - 1))
    values = np.array(data.draw(st.lists(st.integers(-12, 12), min_size=n, max_size=n)), float) / 4
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), float)
    centroids = kmeans_1d(values, weights, k)
    if not weights.any():
        weights = np.ones(n)
    assert centroids.shape == (k,)
    assert np.array_equal(centroids, np.sort(centroids))
    assert cost(values, weights, centroids) == pytest.approx(least_cost(values, weights, k), abs=1e-12)


@pytest.mark.parametrize("k", [2, 3, 16, 64])
@pytest.mark.parametrize("shape", ["normal", "cauchy", "two lumps"])
def test_medium_inputs_reach_the_optimum_of_the_textbook_programme(k: int, shape: str) -> None:
    rng = np.random.default_rng(k)
    values = {
        "normal": rng.normal(size=400),
        "cauchy": rng.standard_cauchy(size=400),
        "two lumps": np.concatenate([rng.normal(-100, 1, 200), rng.normal(100, 0.01, 200)]),
    }[shape]
    weights = rng.exponential(size=400)
    found, best = cost(values, weights, kmeans_1d(values, weights, k)), quadratic_optimum(values, weights, k)
    assert found <= best * (1 + 1e-6) + 1e-9 * np.abs(values).max() ** 2


@pytest.mark.parametrize("bits", [2, 4, 6])
def test_binned_inputs_come_close_to_the_exact_optimum(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(bits)
    values, weights = rng.laplace(size=3 * kmeans.EXACT), rng.random(3 * kmeans.EXACT)
    binned = cost(values, weights, kmeans_1d(values, weights, 2**bits))
    monkeypatch.setattr(kmeans, "EXACT", values.size)
    exact = cost(values, weights, kmeans_1d(values, weights, 2**bits))
    assert exact <= binned <= exact * 1.002


def test_scaling_and_shifting_move_the_centroids_along() -> None:
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=500), rng.random(500)
    centroids = kmeans_1d(values, weights, 8)
    for factor in (1e-30, 1e30, 1e300):
        np.testing.assert_allclose(kmeans_1d(values * factor, weights, 8), centroids * factor, rtol=1e-9)
        np.testing.assert_allclose(kmeans_1d(values, weights * factor, 8), centroids, rtol=1e-9)
    np.testing.assert_allclose(kmeans_1d(values + 1e6, weights, 8) - 1e6, centroids, atol=1e-8)


@pytest.mark.parametrize(
    ("values", "weights", "expected"),
    [
        ([], [], [0, 0, 0, 0]),
        ([3], [1], [3, 3, 3, 3]),
        ([3], [0], [3, 3, 3, 3]),
        ([2, 2, 2], [1, 0, 5], [2, 2, 2, 2]),
        ([5, 1, 5, 3], [1, 1, 1, 1], [1, 3, 5, 5]),
        ([1, 2, 3, 4, 100], [1, 1, 1, 1, 0], [1, 2, 3, 4]),
    ],
    ids=["empty", "one value", "one value without weight", "constant", "fewer than k", "zero weight"],
)
def test_odd_inputs(values: list[float], weights: list[float], expected: list[float]) -> None:
    np.testing.assert_array_equal(kmeans_1d(values, weights, 4), expected)
