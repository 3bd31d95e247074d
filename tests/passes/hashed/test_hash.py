"""The hash: the same for ever, even, and without a memory of rows, columns or seeds."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hashcompile.passes.hashed.hash import MASK, buckets, hashes, layer_seed, mix

SEED = 20150419
GOLDEN_MIX = [0, 1882497534, 2110255858, 1454954631, 1029940059]
GOLDEN_TABLE = [[307337353, 1854050805, 1013156966], [1820230503, 1459663672, 1264588774]]
GOLDEN_SEEDS = [608709988, 788075216, 348419933]


def table(rows: int, columns: int, seed: int = SEED) -> Tensor:
    return hashes(torch.arange(rows), torch.arange(columns), seed)


def written_again(i: int, j: int, seed: int) -> int:
    """Of one place, in Python's own integers, from the formula in the module's first lines."""

    def mixed(x: int) -> int:
        x ^= x >> 15
        x = x * 0x5A827999 % 2**31
        x ^= x >> 13
        x = x * 0x6ED9EBA1 % 2**31
        return x ^ x >> 16

    return mixed(mixed((2 * i + seed) % 2**31) ^ mixed((2 * j + 1 + seed) % 2**31))


def is_even(observed: Tensor, expected: float) -> None:
    """Chi-square within six of its standard deviations: it has the mean d and the variance 2 d."""
    freedom = observed.numel() - 1
    chi = float(((observed - expected) ** 2 / expected).sum())
    assert abs(chi - freedom) < 6 * math.sqrt(2 * freedom), (chi, freedom)


def test_golden_values() -> None:
    """Files hold seeds only: another hash would read another network out of them."""
    assert mix(torch.tensor([0, 1, 2, 12345, MASK])).tolist() == GOLDEN_MIX
    assert table(2, 3).tolist() == GOLDEN_TABLE
    assert [
        layer_seed(seed, name) for seed, name in ((0, "fc1.weight"), (1, "fc1.weight"), (0, "é"))
    ] == GOLDEN_SEEDS


@pytest.mark.parametrize("seed", [0, 1, SEED, MASK])
def test_the_formula(seed: int) -> None:
    rows = torch.tensor([0, 1, 2, 77, 30_000, 2**29, 2**30 - 1])
    columns = torch.tensor([0, 1, 15, 768, 2**30 - 1])
    wanted = [[written_again(int(i), int(j), seed) for j in columns] for i in rows]
    assert hashes(rows, columns, seed).tolist() == wanted


def test_mix_is_one_to_one() -> None:
    """On 2^20 neighbours at either end of its range, and on as many numbers far from one another."""
    count = 1 << 20
    for start, step in ((0, 1), (MASK + 1 - count, 1), (5, 2011)):
        mixed = mix(start + step * torch.arange(count))
        assert len(mixed.unique()) == count
        assert int(mixed.min()) >= 0 and int(mixed.max()) <= MASK


@pytest.mark.parametrize("count", [1, 2, 7, 1000, 4096, 98_000])
def test_buckets_are_even_and_signs_independent(count: int) -> None:
    """Over both together: a sign that followed from the bucket would leave half of the cells empty."""
    size = 1024
    bucket, negative = buckets(table(size, size), count)
    assert int(bucket.min()) >= 0 and int(bucket.max()) < count
    is_even(torch.bincount((2 * bucket + negative).flatten(), minlength=2 * count), size * size / (2 * count))


@pytest.mark.parametrize("shape", [(2048, 64), (64, 2048), (512, 512)])
def test_rows_and_columns_are_not_correlated(shape: tuple[int, int]) -> None:
    """Signs of any two rows, and of any two columns, agree as often as not: sums of K signs, K their variance."""
    signs = 1.0 - 2 * buckets(table(*shape), 1)[1].double()
    for matrix in (signs, signs.T):
        sums = (matrix @ matrix.T)[tuple(torch.triu_indices(len(matrix), len(matrix), 1))]
        # of m sums of K signs hardly one is beyond sqrt(2 K log m), and none far beyond
        assert float(sums.abs().max()) < 1.3 * math.sqrt(2 * matrix.shape[1] * math.log(len(sums)))
        assert abs(float(sums.square().mean()) / matrix.shape[1] - 1) < 0.05


def test_no_matrix_repeats_itself_shifted_or_under_another_seed() -> None:
    """Two places share a bucket once in `count` times, however they lie to one another."""
    count, size = 1000, 600
    bucket, _ = buckets(table(size, size), count)

    def shared(a: Tensor, b: Tensor) -> None:
        expected = a.numel() / count
        assert abs(int((a == b).sum()) - expected) < 6 * math.sqrt(expected)

    for down, across in ((1, 0), (0, 1), (1, 1), (2, 1), (1, 16), (128, 128), (255, 3)):
        shared(bucket[down:, across:], bucket[: size - down, : size - across])
        shared(bucket[down:, : size - across], bucket[: size - down, across:])
    above = tuple(torch.triu_indices(size, size, 1))
    shared(bucket[above], bucket.T[above])
    for other in (0, SEED + 1, SEED + 2, SEED ^ (1 << 30), layer_seed(0, "fc1.weight")):
        shared(bucket, buckets(table(size, size, other), count)[0])
