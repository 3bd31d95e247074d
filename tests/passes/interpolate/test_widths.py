"""One tolerance shared out: within it, best for what it costs, and more of it never keeps more."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hashcompile.passes.interpolate.widths import Curve, widths


def curve(falls: list[float], cost: list[float]) -> Curve:
    """`falls[k]`: what is lost with unit k, all before it being there."""
    lost = torch.tensor([*itertools.accumulate([0.0, *reversed(falls)])], dtype=torch.float64).flip(0)
    return Curve(lost, torch.tensor(cost, dtype=torch.float64))


numbers = st.floats(0, 1, allow_nan=False)
units = st.lists(st.tuples(numbers, st.floats(0.1, 5)), min_size=1, max_size=6)
groups = st.lists(units, min_size=1, max_size=3)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(given_groups=groups, tolerance=numbers, more=numbers)
def test_within_the_tolerance_and_monotone(
    given_groups: list[list[tuple[float, float]]], tolerance: float, more: float
) -> None:
    curves = [curve(*map(list, zip(*each, strict=True))) for each in given_groups]  # type: ignore[arg-type]
    kept = widths(curves, tolerance)
    lost = sum(float(each.lost[k]) for each, k in zip(curves, kept, strict=True))
    assert lost <= tolerance**2 + 1e-12
    assert all(0 <= k <= len(each.cost) for each, k in zip(curves, kept, strict=True))
    larger = widths(curves, min(1.0, tolerance + more))
    assert all(a >= b for a, b in zip(kept, larger, strict=True))


def test_is_the_best_choice_at_its_own_loss() -> None:
    """Where a whole step of a hull ends, no other widths save more and lose as little."""
    draw = torch.Generator().manual_seed(3)
    for _ in range(20):
        curves = [
            curve(*(torch.rand(4, generator=draw).add(0.05).tolist() for _ in range(2))) for _ in range(2)
        ]
        choices = list(itertools.product(range(5), repeat=2))

        def lost(kept: tuple[int, ...], curves: list[Curve] = curves) -> float:
            return sum(float(each.lost[k]) for each, k in zip(curves, kept, strict=True))

        def cost(kept: tuple[int, ...], curves: list[Curve] = curves) -> float:
            return sum(float(each.cost[:k].sum()) for each, k in zip(curves, kept, strict=True))

        first = tuple(widths(curves, 0.8))
        exact = tuple(widths(curves, lost(first) ** 0.5 + 1e-9))
        assert exact == first
        rates = [(lost(c) - lost((4, 4))) / (cost((4, 4)) - cost(c)) for c in choices if c != (4, 4)]
        step = min(
            (c for c in choices if c != (4, 4)),
            key=lambda c: (lost(c) - lost((4, 4))) / (cost((4, 4)) - cost(c)),
        )
        assert tuple(widths(curves, lost(step) ** 0.5 + 1e-9)) == step, (rates, step)


def test_what_costs_nothing_goes_at_no_tolerance() -> None:
    assert widths([curve([0.5, 0.2, 0.0, 0.0], [1, 1, 1, 1])], 0.0) == [2]


def test_a_step_that_does_not_fit_is_taken_in_part() -> None:
    """Half of a long step of even slope."""
    assert widths([curve([0.1] * 10, [1.0] * 10)], 0.55**0.5) == [5]
    assert widths([curve([0.1], [1.0]), curve([0.2], [1.0])], 0.15**0.5) == [0, 1]
