"""When to hash anew: the expected change of fingerprints, against fingerprints that changed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hashcompile.core.errors import ConfigError
from hashcompile.core.lsh import random_planes, simhash
from hashcompile.passes.merge.rehash import RehashSchedule, changed_bits


def test_expects_the_bits_that_really_change() -> None:
    draw = torch.Generator().manual_seed(0)
    before = torch.randn(10, 30, generator=draw)
    after = before + 0.3 * torch.randn(10, 30, generator=draw)
    planes = random_planes(30, 1, 4000, seed=1)
    changed = float((simhash(before, planes) != simhash(after, planes)).double().mean())
    assert abs(changed_bits(before, after) - changed) < 5 * math.sqrt(changed / 40_000)


def test_angles_are_exact_however_small() -> None:
    before = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    for angle in (1e-9, 1e-3, 2.0, math.pi):
        after = 7 * torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)
        assert changed_bits(before, after) == pytest.approx(angle / math.pi, rel=1e-7)


def test_units_of_zeros() -> None:
    zeros, ones = torch.zeros(2, 3, 3), torch.ones(2, 3, 3)
    assert changed_bits(zeros, zeros) == 0
    assert changed_bits(zeros, ones) == changed_bits(ones, zeros) == 0.5
    assert changed_bits(torch.zeros(0, 3), torch.zeros(0, 3)) == 0


def test_a_layer_is_due_when_it_has_turned_and_not_when_it_has_grown() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    schedule = RehashSchedule(model, tolerance=0.1)
    assert schedule.due() == []
    with torch.no_grad():
        model[0].weight.mul_(3)
        model[2].weight.add_(torch.randn(4, 8))
    assert schedule.due() == ["2.weight"]
    assert schedule.moved()["0.weight"] < 1e-6
    schedule.hashed("0.weight")
    assert schedule.due() == ["2.weight"]
    schedule.hashed()
    assert schedule.due() == []


@pytest.mark.parametrize("tolerance", [0, 1, -0.1, True, "0.1", float("nan")])
def test_refuses_nonsense(tolerance: object) -> None:
    with pytest.raises(ConfigError, match="tolerance"):
        RehashSchedule(nn.Linear(2, 2), tolerance)  # type: ignore[arg-type]
