"""Learnt hyperplanes: nearer to the corners than random ones, and the same for the same seed."""

from __future__ import annotations

import itertools

import torch

from hashcompile.core.lsh import collisions, random_planes, simhash
from hashcompile.passes.merge.learnt import learnt_planes, loss, rotation


def clusters(groups: int, each: int, width: int, spread: float) -> torch.Tensor:
    draw = torch.Generator().manual_seed(5)
    centres = torch.randn(groups, 1, width, generator=draw, dtype=torch.float64)
    return (centres + spread * torch.randn(groups, each, width, generator=draw, dtype=torch.float64)).flatten(
        0, 1
    )


def test_no_round_makes_the_loss_larger() -> None:
    projected = clusters(6, 8, 5, 0.2)
    start = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    course = [loss(projected, rotation(projected, start, rounds)) for rounds in range(12)]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(course))
    assert course[-1] < course[0]
    turn = rotation(projected, start, 12)
    torch.testing.assert_close(turn.T @ turn, torch.eye(5, dtype=torch.float64))


def test_similar_units_collide_more_often_than_under_random_planes() -> None:
    """At equal collisions of strangers, or fewer: what is gained is not gained by putting all in one bucket."""
    units = clusters(8, 6, 40, 0.25)
    same = torch.block_diag(*[torch.ones(6, 6)] * 8).bool() & ~torch.eye(48).bool()
    strangers = ~torch.block_diag(*[torch.ones(6, 6)] * 8).bool()
    met = [collisions(simhash(units, planes(units))) for planes in (learnt, plain)]
    assert float(met[0][same].mean()) > 1.2 * float(met[1][same].mean())
    assert float(met[0][strangers].mean()) < 1.1 * float(met[1][strangers].mean())


def learnt(units: torch.Tensor) -> torch.Tensor:
    return learnt_planes(units, 6, 32, seed=0)


def plain(units: torch.Tensor) -> torch.Tensor:
    return random_planes(units.shape[1], 6, 32, seed=0)


def test_more_bits_than_directions_and_units_of_nothing() -> None:
    for units in (torch.randn(3, 2), torch.zeros(4, 5), torch.full((4, 5), 2.0)):
        planes = learnt_planes(units, 7, 2, seed=1)
        assert planes.shape == (2, units.shape[1], 7)
        assert bool(torch.isfinite(planes).all())
        assert torch.equal(planes, learnt_planes(units, 7, 2, seed=1))
