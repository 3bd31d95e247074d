"""One unit for many, and the coefficients with which it is read."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import leaky_relu, relu

from hashcompile.passes.merge.representative import averaging, factors

MEMBERS = [[0, 3], [1], [2, 4, 5]]
BUCKET = torch.tensor([0, 1, 2, 0, 2, 2])


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def test_averages_are_weighted_by_energy() -> None:
    energy, units = random(6).square(), random(6, 4)
    average = averaging(BUCKET, energy) @ units
    for row, members in enumerate(MEMBERS):
        total = sum(float(energy[u]) for u in members)
        torch.testing.assert_close(average[row], sum(float(energy[u]) / total * units[u] for u in members))
    silent = averaging(BUCKET, torch.tensor([0.0, 0, 1, 0, 0, 3]))
    torch.testing.assert_close(silent[0], torch.tensor([0.5, 0, 0, 0.5, 0, 0], dtype=torch.float64))


@pytest.mark.parametrize("activation", [relu, lambda x: leaky_relu(x, 0.1)])
def test_proportional_units_merge_exactly(activation: object) -> None:
    """fc, homogeneous activation, fc: the function is the same with half the units."""
    base, scale = random(3, 5), torch.tensor([1.0, 4.0, 0.3, 2.5, 0.01, 7.0], dtype=torch.float64)
    units, readers, inputs = base[BUCKET] * scale[:, None], random(8, 6), random(100, 5)
    average = averaging(BUCKET, random(6).square())
    mixed = torch.zeros(6, 3, dtype=torch.float64)
    mixed[torch.arange(6), BUCKET] = factors(units, average, BUCKET)
    before = activation(inputs @ units.T) @ readers.T  # type: ignore[operator]
    after = activation(inputs @ (average @ units).T) @ (readers @ mixed).T  # type: ignore[operator]
    torch.testing.assert_close(after, before)


def test_opposites_and_zeros_make_no_nonsense() -> None:
    units = torch.tensor([[1.0, 0], [-1, 0], [0, 0]])
    bucket = torch.tensor([0, 0, 1])
    found = factors(units, averaging(bucket, torch.tensor([3.0, 1, 0])), bucket)
    assert found.tolist() == [2.0, 0.0, 1.0], "relu(-x) is no multiple of relu(x)"
