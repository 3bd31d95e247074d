"""Masks and optimal brain surgery, against formulas written out, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hashcompile.passes.sparse.coded import fit_code
from hashcompile.passes.sparse.masks import keep_most, of_pattern, of_rows, of_share
from hashcompile.passes.sparse.surgeon import DAMPING, inverse_factor, operate, pattern, share


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gram_of(columns: int, seed: int = 1) -> Tensor:
    x = normal(columns, columns, seed=seed) @ normal(columns, 4 * columns, seed=seed + 1)
    return x @ x.T


def lost(rows: Tensor, other: Tensor, gram: Tensor) -> float:
    damped = gram + DAMPING * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return float((((rows - other) @ damped) * (rows - other)).sum())


def test_masks() -> None:
    scores = torch.tensor([[5.0, 1.0, 4.0, 2.0, 9.0], [3.0, 8.0, 7.0, 6.0, 0.0]])
    assert torch.equal(of_share(scores, 0.3), scores > 2)
    assert torch.equal(of_rows(scores, 0.4), torch.tensor([[1, 0, 1, 0, 1], [0, 1, 1, 1, 0]]).bool())
    assert torch.equal(of_pattern(scores, 2, 4), torch.tensor([[1, 0, 1, 0, 1], [0, 1, 1, 0, 1]]).bool())
    assert torch.equal(keep_most(torch.ones(2, 4), 2), torch.tensor([[1, 1, 0, 0]] * 2).bool())
    assert int(of_share(scores, 0.0).sum()) == 10 and of_share(torch.zeros(0, 3), 0.5).shape == (0, 3)


def test_the_inverse_factor() -> None:
    gram = gram_of(9)
    factor = inverse_factor(gram)
    assert torch.equal(factor, factor.triu())
    wanted = torch.linalg.inv(gram / gram.diagonal().mean() + DAMPING * torch.eye(9, dtype=torch.float64))
    torch.testing.assert_close(factor.T @ factor, wanted)
    assert torch.equal(inverse_factor(torch.zeros(3, 3)), torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("columns", [7, 128, 131, 260])
def test_a_sweep_is_one_step_after_another(columns: int) -> None:
    """Blocks are only an order of summation: pruning with a fixed mask equals the recursion written out."""
    rows, gram = normal(5, columns), gram_of(columns)
    mask = torch.rand(5, columns, generator=torch.Generator().manual_seed(0)) < 0.5
    form = gram / gram.diagonal().mean() + DAMPING * torch.eye(columns, dtype=torch.float64)
    left = rows.clone()
    for j in range(columns):  # the last weights alone are free: H^-1 of what is left is a lower corner's
        inverse = torch.linalg.inv(form[j:, j:])
        error = torch.where(mask[:, j], 0.0, left[:, j])
        left[:, j:] -= error[:, None] * inverse[0] / inverse[0, 0]
        left[:, j] = torch.where(mask[:, j], left[:, j], 0.0)
    found = operate(rows, gram, mask, *share(0.5))
    torch.testing.assert_close(found.rows, left, rtol=1e-7, atol=1e-7 * float(left.abs().max()))
    assert torch.equal(found.mask, mask) and not found.rows[~mask].any()


@pytest.mark.parametrize("columns", [64, 200])
def test_surgery_loses_less_than_zeros(columns: int) -> None:
    rows, gram = normal(20, columns), gram_of(columns)
    by_size = of_share(rows.abs(), 0.5)
    plain = lost(rows, rows * by_size, gram)
    fixed = operate(rows, gram, by_size, *share(0.5))
    chosen = operate(rows, gram, None, *share(0.5))
    assert lost(rows, chosen.rows, gram) < lost(rows, fixed.rows, gram) < plain
    assert abs(float(chosen.mask.double().mean()) - 0.5) < 0.01
    assert not chosen.rows[~chosen.mask].any()


@pytest.mark.parametrize(("kept", "of", "columns"), [(2, 4, 256), (2, 4, 130), (1, 3, 129)])
def test_patterns_hold(kept: int, of: int, columns: int) -> None:
    rows, gram = normal(6, columns), gram_of(columns)
    found = operate(rows, gram, None, *pattern(kept, of))
    for first in range(0, 128 - 128 % of, of):
        assert (found.mask[:, first : first + of].sum(1) == kept).all()
    nothing = operate(rows, torch.zeros(columns, columns), None, *pattern(kept, of))
    run = slice(0, 128 - 128 % of)
    assert torch.equal(nothing.mask[:, run], of_pattern(rows.abs()[:, run], kept, of))


def test_error_feedback_touches_kept_weights_only_and_pays() -> None:
    rows, gram = normal(16, 90), gram_of(90)
    mask = of_share(rows.abs(), 0.6)
    code = fit_code(rows, mask, 3, gram[None], None)
    nearest = torch.where(mask, torch.stack([code.rounding(slice(0, 16))(c, 0) for c in rows.T]).T, 0.0)
    fed = operate(rows, gram, mask, *share(0.6), code.rounding(slice(0, 16)))
    assert not fed.rows[~mask].any()
    assert lost(rows, fed.rows, gram) < lost(rows, nearest, gram)
    levels = fed.rows[mask] / code.scale[:, None].expand_as(rows)[mask]
    assert float((levels[:, None] - code.table).abs().min(1).values.max()) < 1e-9
    refitted = code.refitted(rows, fed.rows, mask, gram[None])
    moved = fed.rows * (refitted.scale / code.scale)[:, None]
    assert lost(rows, moved, gram) <= lost(rows, fed.rows, gram) * 1.01


def test_codes_of_few_values() -> None:
    rows = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 1.0]], dtype=torch.float64)
    mask = rows != 0
    code = fit_code(rows, mask, 4, None, None)
    assert torch.isfinite(code.table).all() and code.scale[1] == 0
    indices = code.indices(rows, mask)
    values = code.table[indices.long()] * code.scale[torch.nonzero(mask)[:, 0]]
    torch.testing.assert_close(values, rows[mask])
    empty = fit_code(rows * 0, torch.zeros_like(mask), 2, None, None)
    assert torch.equal(empty.table, torch.zeros(4, dtype=torch.float64)) and not len(
        empty.indices(rows, mask & False)
    )
