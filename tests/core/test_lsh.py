"""Hashes collide as often as the papers say."""

from __future__ import annotations

import math

import pytest
import torch

from hashcompile.core.lsh import (
    as_items,
    as_queries,
    collisions,
    cross_polytope,
    random_planes,
    simhash,
)


def at_angle(angle: float, width: int = 24) -> torch.Tensor:
    """Two rows at that angle, of different lengths."""
    draw = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(width, 2, generator=draw, dtype=torch.float64)).Q
    return torch.stack(
        [3 * basis[:, 0], 0.2 * (math.cos(angle) * basis[:, 0] + math.sin(angle) * basis[:, 1])]
    )


@pytest.mark.parametrize("angle", [0.05, 0.4, math.pi / 2, 2.5])
def test_simhash_bits_agree_with_the_angle(angle: float) -> None:
    tables = 4_000
    met = float(collisions(simhash(at_angle(angle), random_planes(24, 1, tables, seed=1)))[0, 1])
    expected = 1 - angle / math.pi
    assert abs(met - expected) < 5 * math.sqrt(expected * (1 - expected) / tables)


def test_simhash_of_many_bits_is_their_number() -> None:
    units, planes = torch.randn(9, 6), random_planes(6, 11, 3, seed=2)
    found = simhash(units, planes)
    for table in range(3):
        for unit in range(9):
            bits = [float(units[unit].double() @ planes[table, :, bit]) >= 0 for bit in range(11)]
            assert int(found[table, unit]) == sum(1 << place for place, bit in enumerate(bits) if bit)


def test_cross_polytope_is_the_nearest_vertex() -> None:
    units, planes = torch.randn(9, 6), random_planes(6, 5, 3, seed=2)
    vertices = (
        torch.eye(5, dtype=torch.float64).repeat_interleave(2, 0) * torch.tensor([1.0, -1]).repeat(5)[:, None]
    )
    for table in range(3):
        nearest = torch.cdist(units.double() @ planes[table], vertices).argmin(1)
        assert torch.equal(cross_polytope(units, planes)[table], nearest)


@pytest.mark.parametrize("hashed", [simhash, cross_polytope])
def test_lengths_do_not_matter_and_opposites_never_meet(hashed: object) -> None:
    planes = random_planes(24, 8, 50, seed=3)
    near = collisions(hashed(at_angle(0.0), planes))  # type: ignore[operator]
    assert float(near[0, 1]) == 1
    assert float(collisions(hashed(at_angle(math.pi), planes))[0, 1]) == 0  # type: ignore[operator]
    closer = [float(collisions(hashed(at_angle(angle), planes))[0, 1]) for angle in (0.1, 0.7, 1.5)]  # type: ignore[operator]
    assert closer[0] > closer[1] > closer[2]


def test_the_asymmetric_transform_makes_inner_products_angles() -> None:
    units = torch.randn(8, 5, dtype=torch.float64) * torch.logspace(-3, 3, 8, dtype=torch.float64)[:, None]
    items, queries = as_items(units), as_queries(units)
    torch.testing.assert_close(items.norm(dim=1), torch.ones(8, dtype=torch.float64))
    torch.testing.assert_close(queries.norm(dim=1), torch.ones(8, dtype=torch.float64))
    lengths = units.norm(dim=1)
    torch.testing.assert_close(queries @ items.T, (units @ units.T) / lengths[:, None] / lengths.max())


def test_the_asymmetric_transform_of_nothing() -> None:
    zeros = torch.zeros(3, 4)
    assert bool(torch.isfinite(as_items(zeros)).all()) and bool(torch.isfinite(as_queries(zeros)).all())
    assert as_items(torch.zeros(0, 4)).shape == (0, 5)


def test_a_query_prefers_the_long_of_two_parallel_items() -> None:
    units = torch.tensor([[1.0, 0.1], [0.1, 0.01], [10.0, 1.0]])
    planes = random_planes(3, 4, 4000, seed=0)
    met = collisions(simhash(as_items(units), planes), simhash(as_queries(units), planes))
    assert float(met[0, 2]) > float(met[0, 0]) > float(met[0, 1])
