"""Joining what loses least, and only what a hash proposed."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hashcompile.passes.merge.buckets import buckets, cosines, losses


def every(count: int) -> torch.Tensor:
    return torch.ones(count, count, dtype=torch.bool)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("target", [1, 3, 9, 12])
def test_is_complete_linkage(seed: int, target: int) -> None:
    loss = losses(cosines(random(12, 4, seed=seed)), random(12, seed=seed).square())
    expected = [[unit] for unit in range(12)]
    while len(expected) > target:
        a, b = min(
            itertools.combinations(range(len(expected)), 2),
            key=lambda pair: max(float(loss[u, v]) for u in expected[pair[0]] for v in expected[pair[1]]),
        )
        expected[a] += expected.pop(b)
    assert buckets(loss, every(12), target) == sorted(sorted(bucket) for bucket in expected)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(count=st.integers(0, 12), target=st.integers(0, 12), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_every_unit_has_one_bucket_of_allowed_pairs(count: int, target: int, share: float, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    allowed = torch.rand(count, count, generator=draw) < share
    found = buckets(losses(cosines(random(count, 3, seed=seed)), torch.ones(count)), allowed, target)
    assert sorted(itertools.chain(*found)) == list(range(count))
    assert len(found) >= min(count, max(1, target))
    either = allowed | allowed.T
    assert all(either[u, v] for bucket in found for u, v in itertools.combinations(bucket, 2))


def test_members_are_as_similar_as_allowed() -> None:
    similarity = cosines(random(30, 3))
    found = buckets(losses(similarity, torch.ones(30)), similarity >= 0.9, 1)
    assert 1 < len(found) < 30
    assert all(float(similarity[u, v]) >= 0.9 for bucket in found for u in bucket for v in bucket if u != v)


def test_what_never_met_stays_apart() -> None:
    met = torch.zeros(3, 3, dtype=torch.bool)
    met[2, 0] = True  # one way is enough: a query found an item
    assert buckets(torch.zeros(3, 3), met, 1) == [[0, 2], [1]]


def test_what_is_worth_little_goes_first_and_twins_before_that() -> None:
    units = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1], [0, 2], [-1, 0.5]])
    worth = torch.tensor([1.0, 1, 1, 1, 1e-4], dtype=torch.float64)
    loss = losses(cosines(units), worth)
    assert float(loss[2, 3]) == 0
    assert float(loss[4, 0]) == float(worth[4]), "opposites tell nothing of each other"
    assert buckets(loss, every(5), 4) == [[0], [1], [2, 3], [4]]
    assert buckets(loss, every(5), 3) == [[0], [1], [2, 3, 4]]


def test_zeros_are_like_nothing() -> None:
    assert torch.equal(cosines(torch.zeros(3, 4)), torch.zeros(3, 3, dtype=torch.float64))
    assert buckets(torch.zeros(0, 0), every(0), 1) == []
