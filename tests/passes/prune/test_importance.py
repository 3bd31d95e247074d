"""Every importance against its definition, written out unit by unit in float64."""

from __future__ import annotations

import pytest
import torch

from hashcompile.passes.prune.importance import IMPORTANCES, Units, relative

U, SIZES = 7, (5, 12)


def units() -> Units:
    draw = torch.Generator().manual_seed(3)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw)

    return Units(
        produced=tuple(random(U, size) * scale for size, scale in zip(SIZES, (1.0, 30.0), strict=True)),
        scales=(random(U), 5 * random(U)),
        energies=(random(U).square(), 9 * random(U).square()),
        changes=random(4, U),
    )


def by_hand(name: str, known: Units) -> list[float]:
    rows = [[w[u].double() for w in known.produced] for u in range(U)]
    mean = [sum(float(w[v].double().norm()) for v in range(U)) / U for w in known.produced]
    rms = [float(w.double().square().mean().sqrt()) for w in known.produced]

    def of(u: int) -> float:
        if name == "l1":
            return sum(float(w.abs().sum()) for w in rows[u])
        if name == "l2":
            return sum(float((w**2).sum()) for w in rows[u]) ** 0.5
        if name == "column_norm":
            return sum(float(w.norm()) / m for w, m in zip(rows[u], mean, strict=True)) / len(mean)
        if name == "batch_norm":
            shares = [abs(float(s[u])) / (float(s.double().abs().sum()) / U) for s in known.scales]
            return sum(shares) / len(shares)
        if name == "activation":
            sizes = [[float(e[v]) ** 0.5 for v in range(U)] for e in known.energies]
            return sum(size[u] / (sum(size) / U) for size in sizes) / len(sizes)
        if name == "taylor":
            assert known.changes is not None
            return sum(float(known.changes[batch, u]) ** 2 for batch in range(4)) / 4
        assert name == "geometric_median"
        return sum(
            sum(
                float(((w[u] - w[v]).double() / r).square().sum())
                for w, r in zip(known.produced, rms, strict=True)
            )
            ** 0.5
            for v in range(U)
        )

    return [of(u) for u in range(U)]


@pytest.mark.parametrize("name", IMPORTANCES)
def test_is_its_definition(name: str) -> None:
    known = units()
    expected = torch.tensor(by_hand(name, known), dtype=torch.float64)
    torch.testing.assert_close(IMPORTANCES[name].score(known), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", IMPORTANCES)
def test_zeros_and_constants_are_no_division_by_zero(name: str) -> None:
    for value in (0.0, 2.0):
        known = units()
        same = Units(
            *(
                tuple(torch.full_like(each, value) for each in field)
                for field in list(vars(known).values())[:3]
            ),
            torch.full((4, U), value),
        )
        score = IMPORTANCES[name].score(same)
        assert bool(torch.isfinite(score).all())
        torch.testing.assert_close(score, score[:1].expand(U))


@pytest.mark.parametrize("name", ["column_norm", "batch_norm", "activation", "geometric_median"])
def test_a_layer_of_large_numbers_has_no_more_votes(name: str) -> None:
    known = units()
    scaled = Units(
        *(
            tuple(each * (1000 if place else 1) for place, each in enumerate(field))
            for field in (known.produced, known.scales, known.energies)
        )
    )
    torch.testing.assert_close(IMPORTANCES[name].score(scaled), IMPORTANCES[name].score(known))


def test_relative_scores_have_a_mean_of_one() -> None:
    torch.testing.assert_close(relative(torch.tensor([1.0, 3.0, 8.0])), torch.tensor([0.25, 0.75, 2.0]))
    assert torch.equal(relative(torch.zeros(3)), torch.zeros(3))
