"""The dynamic mean-column-norm rule."""

from __future__ import annotations

import torch

from hashcompile.passes.prune.column_norm import Rule


def test_removes_what_is_far_under_the_mean() -> None:
    norms = torch.tensor([1.0, 10, 10, 10, 10, 10, 10, 2], dtype=torch.float64)
    mean = float(norms.mean())
    spread = float(((norms - mean) ** 2).mean().sqrt())
    assert abs(Rule(1.0).threshold(norms) - (mean - spread)) < 1e-12 * mean
    assert Rule(1.0).removable(norms) == 2
    assert Rule(1.8).removable(norms) == 1
    assert Rule(9.0).removable(norms) == 0


def test_scale_says_nothing() -> None:
    norms = torch.rand(100, generator=torch.Generator().manual_seed(1))
    assert Rule().removable(norms) == Rule().removable(norms * 1e6) > 0


def test_even_columns_stay() -> None:
    for norms in (torch.full((8,), 3.0), torch.zeros(8), torch.zeros(0)):
        assert Rule().removable(norms) == 0


def test_waits_while_training_still_moves_the_mean() -> None:
    norms = torch.tensor([1.0, 10, 10, 10, 10, 10, 10, 2], dtype=torch.float64)
    mean = float(norms.mean())
    assert Rule(settled=0.05).removable(norms, [5.0, mean * 1.04]) == 2
    assert Rule(settled=0.05).removable(norms, [mean, mean * 1.06]) == 0
