"""Joining the most alike, and only what a hash proposed."""

from __future__ import annotations

import itertools

import pytest
import torch

from hashcompile.passes.merge.buckets import buckets, cosines


def every(count: int) -> torch.Tensor:
    return torch.ones(count, count, dtype=torch.bool)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("target", [1, 3, 9, 12])
def test_is_complete_linkage(seed: int, target: int) -> None:
    units = torch.randn(12, 4, generator=torch.Generator().manual_seed(seed))
    similarity = cosines(units)
    expected = [[unit] for unit in range(12)]
    while len(expected) > target:
        a, b = max(
            itertools.combinations(range(len(expected)), 2),
            key=lambda pair: min(
                float(similarity[u, v]) for u in expected[pair[0]] for v in expected[pair[1]]
            ),
        )
        expected[a] += expected.pop(b)
    assert buckets(similarity, every(12), target, -1.0) == sorted(sorted(bucket) for bucket in expected)


def test_members_are_as_similar_as_asked() -> None:
    similarity = cosines(torch.randn(30, 3, generator=torch.Generator().manual_seed(0)))
    found = buckets(similarity, every(30), 1, 0.9)
    assert sorted(itertools.chain(*found)) == list(range(30)) and 1 < len(found) < 30
    assert all(float(similarity[u, v]) >= 0.9 for bucket in found for u in bucket for v in bucket if u != v)


def test_what_never_met_stays_apart() -> None:
    units = torch.tensor([[1.0, 0], [1, 0], [1, 0]])
    met = torch.zeros(3, 3, dtype=torch.bool)
    met[2, 0] = True  # one way is enough: a query found an item
    assert buckets(cosines(units), met, 1, 0.5) == [[0, 2], [1]]


def test_zeros_are_like_nothing() -> None:
    assert buckets(cosines(torch.zeros(3, 4)), every(3), 1, 0.1) == [[0], [1], [2]]
    assert buckets(cosines(torch.zeros(0, 4)), every(0), 1, 0.1) == []
