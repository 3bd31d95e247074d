"""The fitted values against least squares written out densely, and against what no fit may do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hashcompile.core.errors import CalibrationError, WeightError
from hashcompile.passes.hashed.fit import fit_values, sample_values
from hashcompile.passes.hashed.weight import places

Draw = torch.Generator


def seeded(seed: int) -> Draw:
    return torch.Generator().manual_seed(seed)


def grams(sets: int, columns: int, samples: int = 40) -> Tensor:
    mixing = torch.linspace(0.2, 3, columns, dtype=torch.float64)
    x = torch.randn(sets, samples, columns, generator=seeded(7), dtype=torch.float64) * mixing
    return x.mT @ x


def design(index: Tensor, count: int) -> Tensor:
    """A, (N * K, count): one entry a row."""
    flat = index.flatten().long()
    matrix = torch.zeros(len(flat), count, dtype=torch.float64)
    matrix[torch.arange(len(flat)), flat % count] = torch.where(flat < count, 1.0, -1.0).double()
    return matrix


def quadratic(rows: int, form: Tensor, importance: Tensor) -> Tensor:
    """(N * K, N * K): what the residual as one vector is judged by."""
    each = rows // len(form)
    return torch.block_diag(*(importance[n] * form[n // each] for n in range(rows)))


@pytest.mark.parametrize("tile", [False, True])
@pytest.mark.parametrize(
    ("rows", "columns", "sets", "count"),
    [(12, 10, 1, 16), (12, 10, 3, 16), (1, 30, 1, 5), (18, 1, 18, 4), (6, 9, 2, 200), (33, 17, 1, 256)],
)
def test_least_squares(rows: int, columns: int, sets: int, count: int, tile: bool) -> None:
    count = 256 * -(-count // 256) if tile else count
    weight = torch.randn(rows, columns, generator=seeded(1))
    index = places(rows, columns, count, seed=3, tile=tile)
    gram = grams(sets, columns)
    importance = 0.5 + torch.rand(rows, generator=seeded(2), dtype=torch.float64)
    # conjugate gradients end after as many steps as there are values, and three more for rounding
    found = fit_values(
        weight, index, count, gram=gram, importance=importance, damping=0.1, steps=count + 3, enough=0.0
    ).double()

    mean = gram.diagonal(dim1=1, dim2=2).mean()
    form = gram / mean + 0.1 * torch.eye(columns, dtype=torch.float64)
    matrix, judge = design(index, count), quadratic(rows, form, importance)
    flat = weight.double().flatten()
    used = matrix.abs().sum(0) > 0
    normal, right = matrix.T @ judge @ matrix, matrix.T @ judge @ flat
    best = torch.zeros(count, dtype=torch.float64)
    best[used] = torch.linalg.solve(normal[used][:, used], right[used])
    assert bool((found[~used] == 0).all())
    # float32 values are off by eps / 2 each; a badly determined one by as much as the form is badly conditioned
    torch.testing.assert_close(found, best, rtol=1e-5, atol=1e-6)

    residual = flat - matrix @ found
    slope = matrix.T @ (judge @ residual)
    assert float(slope.abs().max()) < 1e-5 * float(right.abs().max()), (
        "the residual is orthogonal to every bucket"
    )
    least = residual @ judge @ residual
    for seed in range(5):
        other = matrix @ (found + 1e-2 * torch.randn(count, generator=seeded(seed), dtype=torch.float64))
        assert (flat - other) @ judge @ (flat - other) > least


def test_without_data_each_bucket_takes_the_mean_of_its_weights() -> None:
    rows, columns, count = 40, 23, 60
    weight = torch.randn(rows, columns, generator=seeded(1))
    index = places(rows, columns, count, seed=9, tile=False).long()
    importance = torch.rand(rows, generator=seeded(2)).double()
    sign = torch.where(index < count, 1.0, -1.0)
    for counted in (None, importance):
        found = fit_values(weight, index, count, importance=counted)
        share = torch.ones(rows) if counted is None else counted
        for bucket in range(count):
            mine = index % count == bucket
            mass = share[:, None].expand(rows, columns)[mine].double()
            wanted = (mass * (sign * weight)[mine].double()).sum() / mass.sum()
            assert float(found[bucket]) == pytest.approx(float(wanted), rel=1e-6, abs=1e-7)
    silent = fit_values(weight, index, count, gram=torch.zeros(1, columns, columns, dtype=torch.float64))
    assert torch.equal(silent, fit_values(weight, index, count)), "inputs of zeros tell nothing"


def test_steps_lower_the_error_and_the_default_is_near_the_end() -> None:
    rows, columns, count = 600, 96, 7200
    weight = torch.randn(rows, columns, generator=seeded(1))
    index, gram = places(rows, columns, count, 5, False), grams(1, columns, 200)
    form = gram[0] / gram[0].diagonal().mean() + 0.01 * torch.eye(columns)

    def error(values: Tensor) -> float:
        gap = weight.double() - torch.cat([values, -values]).double()[index.long()]
        return float((gap @ form * gap).sum())

    found = [
        error(fit_values(weight, index, count, gram=gram, steps=steps, enough=0.0))
        for steps in (0, 1, 3, 10, 300)
    ]
    assert found == sorted(found, reverse=True) and found[-1] < 0.95 * found[0]
    assert error(fit_values(weight, index, count, gram=gram)) < found[-1] * 1.001


def test_any_number_of_threads_gives_the_same_bits() -> None:
    weight = torch.randn(1500, 40, generator=seeded(1))
    index, gram = places(1500, 40, 900, 5, False), grams(1, 40)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(fit_values(weight, index, 900, gram=gram))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("tile", [False, True])
def test_a_sample_is_one_of_the_bucket(tile: bool) -> None:
    rows, columns, count = 50, 41, 256
    weight = torch.randn(rows, columns, generator=seeded(1))
    index = places(rows, columns, count, 5, tile).long()
    found = sample_values(weight, index, count, seed=1)
    signed = torch.where(index < count, 1.0, -1.0) * weight
    for bucket in range(count):
        members = signed[index % count == bucket]
        assert bool((members == found[bucket]).any()) if len(members) else float(found[bucket]) == 0
    assert not torch.equal(found, sample_values(weight, index, count, seed=2))
    assert float(found.std()) == pytest.approx(1.0, abs=0.2), "the scale of the weights, not of their means"
    means = fit_values(weight, index, count)
    assert float(means.std()) < 0.6


def test_constant_and_zero_weights() -> None:
    index = places(30, 20, 50, 1, False)
    assert bool((fit_values(torch.zeros(30, 20), index, 50) == 0).all())
    assert bool((sample_values(torch.zeros(30, 20), index, 50, 1) == 0).all())
    sign = torch.where(index < 50, 3.0, -3.0)  # what hashing can say exactly
    values = fit_values(sign, index, 50, gram=grams(1, 20))
    torch.testing.assert_close(values, torch.full((50,), 3.0), rtol=1e-6, atol=0)
    huge = fit_values(1e37 * sign, index, 50, gram=grams(1, 20))
    torch.testing.assert_close(huge, torch.full((50,), 3e37), rtol=1e-6, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number(value: float) -> None:
    index, weight, gram = places(30, 20, 50, 1, False), torch.zeros(30, 20), grams(1, 20)
    weight[3, 4] = value
    with pytest.raises(WeightError, match="shape \\(30, 20\\) hold NaN or infinite"):
        fit_values(weight, index, 50)
    with pytest.raises(WeightError, match="nothing to fit"):
        sample_values(weight, index, 50, 1)
    gram[0, 3, 4] = value
    with pytest.raises(CalibrationError, match="check the calibration data"):
        fit_values(torch.zeros(30, 20), index, 50, gram=gram)
