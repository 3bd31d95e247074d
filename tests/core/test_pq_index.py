"""The PQ Index: its formula, the bound it gives, and what its course says."""

from __future__ import annotations

import itertools

import pytest
import torch

from hashcompile.core.pq_index import Phase, Rule, phase, pq_index

PAIRS = ((0.5, 1.0), (1.0, 2.0), (0.3, 1.7))


def random(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("p", "q"), PAIRS)
@pytest.mark.parametrize("count", [1, 2, 50])
def test_is_its_formula(p: float, q: float, count: int) -> None:
    values = random(count)
    norm_p, norm_q = (sum(abs(float(v)) ** r for v in values) ** (1 / r) for r in (p, q))
    assert pq_index(values, p, q) == pytest.approx(1 - count ** (1 / q - 1 / p) * norm_p / norm_q, abs=1e-12)


@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_knows_its_ends_and_no_scale(p: float, q: float) -> None:
    assert pq_index(torch.full((9,), -3.0), p, q) == pytest.approx(0, abs=1e-12)
    one = torch.zeros(1000)
    one[7] = 5
    assert pq_index(one, p, q) == pytest.approx(1 - 1000 ** (1 / q - 1 / p), abs=1e-12)
    for scale in (1e-200, 1e200):
        assert pq_index(random(20) * scale, p, q) == pytest.approx(pq_index(random(20), p, q))
    assert pq_index(torch.zeros(4), p, q) == pq_index(torch.zeros(0), p, q) == 0


@pytest.mark.parametrize(("p", "q"), PAIRS)
@pytest.mark.parametrize("seed", range(4))
def test_no_smaller_set_can_hold_so_much(p: float, q: float, seed: int) -> None:
    """For every r: with eta what the largest r entries leave out, in |.|_p^p and as a share of theirs, bound <= r."""
    values = random(40, seed).pow(3)
    powers = values.abs().sort(descending=True).values.pow(p)
    for kept in range(1, 41):
        eta = float(powers[kept:].sum() / powers[:kept].sum())
        assert Rule(p, q, eta).bound(40, pq_index(values, p, q)) <= kept + 1e-9


def test_a_round_takes_what_the_bound_leaves_and_no_more_than_beta() -> None:
    sparse = torch.cat([torch.ones(10), torch.full((90,), 1e-9)])
    index = pq_index(sparse)
    assert Rule().removable(index) == pytest.approx(1 - Rule().bound(100, index) / 100)
    assert Rule(beta=0.25).removable(index) == 0.25
    assert Rule(gamma=0.5, beta=1.0).removable(index) == pytest.approx(0.5 * (1 - Rule().bound(1, index)))
    assert Rule().removable(pq_index(torch.ones(50))) == Rule().removable(0.0) == 0
    assert Rule(gamma=9.0).removable(0.99) == 0.9


def test_phases() -> None:
    assert phase([]) is phase([0.3]) is phase([0.3, 0.2, 0.2]) is Phase.COMPRESSIBLE
    assert phase([0.3, 0.2, 0.25]) is phase([0.2, 0.3, 0.3]) is Phase.UNDERFITTING
    assert phase([0.3, 0.2, 0.4, 0.35]) is Phase.COLLAPSING
    assert phase([0.3, 0.2, 0.4, 0.35, 0.9]) is Phase.COLLAPSING
    drift = list(itertools.accumulate([0.3] + [0.0004] * 10))
    assert phase(drift[:3]) is Phase.COMPRESSIBLE, "below the tolerance"
    assert phase(drift) is Phase.UNDERFITTING, "many small steps are a large one"
