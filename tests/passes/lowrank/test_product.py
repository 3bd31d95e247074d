"""The mathematics of fewer inputs, against singular values and least squares on real samples, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hashcompile.passes.lowrank.product import Product, falling, least_rank, principal

EPS = torch.finfo(torch.float64).eps


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated(channels: int, samples: int, seed: int = 1) -> Tensor:
    """X (m, samples) whose directions differ in size."""
    return normal(channels, channels, seed=seed) @ (
        torch.arange(1, channels + 1, dtype=torch.float64)[:, None] ** -1.0
        * normal(channels, samples, seed=seed + 1)
    )


def lost(rows: Tensor, basis: Tensor, told: Tensor, x: Tensor) -> float:
    """|W X - U D X|^2 on the samples themselves."""
    return float(((rows - told @ basis) @ x).square().sum())


@pytest.mark.parametrize("rank", [1, 3, 8])
@pytest.mark.parametrize("shape", [(12, 9), (9, 12), (1, 9), (12, 1)])
def test_whitened_loses_the_singular_values_left_out(shape: tuple[int, int], rank: int) -> None:
    """Eckart, Young & Mirsky: no rank-r map of X loses less than the tail of the singular values of W X."""
    rows, x = normal(*shape), correlated(shape[1], 50)
    product = Product.of(rows, shape[1], x @ x.T)
    basis = product.basis("whitened")[:rank]
    values = torch.linalg.svdvals(rows @ x).square()
    whole, wanted = float(values.sum()), float(values[rank:].sum())
    # the ridge on the reduced gram moves the loss by its square, and by itself where it is all there is
    found = lost(rows, basis, product.told(basis)[:, :, 0], x)
    assert abs(found - wanted) <= 1e-8 * whole
    losses = product.losses(product.basis("whitened"))
    wanted_all = torch.cat([values.new_tensor([whole]), whole - values.cumsum(0)]) / whole
    torch.testing.assert_close(losses, wanted_all[: len(losses)].clamp_min(0), rtol=0, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 8),
    channels=st.integers(1, 8),
    rank=st.integers(1, 4),
    by=st.sampled_from(["svd", "whitened"]),
    seed=st.integers(0, 2**20),
)
def test_nothing_random_of_the_same_rank_does_better(
    count: int, channels: int, rank: int, by: Any, seed: int
) -> None:
    rows, x = normal(count, channels, seed=seed), correlated(channels, 30, seed=seed + 1)
    whitened = by == "whitened"
    product = Product.of(rows, channels, x @ x.T if whitened else None)
    seen = x if whitened else torch.eye(channels, dtype=torch.float64)
    basis = product.basis(by)[:rank]
    told = product.told(basis)[:, :, 0]
    best, whole = lost(rows, basis, told, seen), float((rows @ seen).square().sum())
    for step in (1e-3, 1e-1, 1.0):
        for number in range(5):
            other = basis + step * normal(*basis.shape, seed=seed + number)
            moved = told + step * normal(*told.shape, seed=seed - number - 1)
            assert best <= lost(rows, other, moved, seen) + 1e-8 * whole
            solved = torch.linalg.lstsq((other @ seen).T, (rows @ seen).T).solution.T
            assert best <= lost(rows, other, solved, seen) + 1e-8 * whole


@pytest.mark.parametrize("by", ["svd", "whitened", "pca"])
@pytest.mark.parametrize("taps", [1, 3])
def test_told_is_least_squares_on_the_samples(by: Any, taps: int) -> None:
    rows, x = normal(7, 6 * taps), correlated(6 * taps, 80)
    product = Product.of(rows, 6, x @ x.T)
    basis = product.basis(by)
    torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis), dtype=torch.float64))
    for rank in range(1, len(basis) + 1):
        reduced = torch.einsum("rm,mts->rts", basis[:rank], x.reshape(6, taps, -1)).flatten(0, 1)
        solved = torch.linalg.lstsq(reduced.T, (rows @ x).T).solution.T
        wanted = (rows @ x - solved @ reduced).square().sum()
        told = product.told(basis[:rank]).flatten(1)
        found = (rows @ x - told @ reduced).square().sum()
        whole = (rows @ x).square().sum()
        assert wanted - 1e-9 * whole <= found <= wanted + 1e-8 * whole
        torch.testing.assert_close(product.losses(basis)[rank], wanted / whole, rtol=0, atol=1e-8)


def test_pca_is_that_of_the_inputs() -> None:
    x = correlated(5, 60)
    product = Product.of(normal(9, 5), 5, x @ x.T)
    wanted = torch.linalg.svd(x)[0].T
    assert float((product.basis("pca") @ wanted.T).abs().diagonal().min()) > 1 - 1e-9


def test_whitened_is_the_pca_of_the_outputs() -> None:
    rows, x = normal(9, 5), correlated(5, 60)
    product = Product.of(rows, 5, x @ x.T)
    basis = product.basis("whitened")[:2]
    axes = torch.linalg.svd(rows @ x)[0][:, :2]
    torch.testing.assert_close(
        product.told(basis)[:, :, 0] @ basis,
        axes @ axes.T @ rows,
        rtol=0,
        atol=1e-5 * float(rows.abs().max()),
    )


def test_rows_count_as_often_as_they_are_read() -> None:
    rows, often = normal(20, 6), torch.arange(1.0, 21.0)
    product = Product.of(rows, 6, None, often)
    basis = product.basis("svd")[:2]
    values = torch.linalg.svdvals(rows * often.double().sqrt()[:, None]).square()
    loss = ((rows - product.told(basis)[:, :, 0] @ basis).square().sum(1) * often).sum()
    torch.testing.assert_close(loss, values[2:].sum())
    torch.testing.assert_close(product.losses(product.basis("svd"))[2], values[2:].sum() / values.sum())


@pytest.mark.parametrize("by", ["svd", "whitened", "pca"])
@pytest.mark.parametrize(
    "rows", [torch.zeros(4, 3), torch.ones(4, 3), torch.ones(1, 3)], ids=["0", "1", "row"]
)
def test_degenerate_weights_and_inputs(by: Any, rows: Tensor) -> None:
    """Zero and constant weights, one row; inputs of which one is never anything but zero, and none at all."""
    x = correlated(3, 20)
    x[1] = 0
    for gram in (x @ x.T, torch.zeros(3, 3)):
        product = Product.of(rows, 3, gram)
        basis = product.basis(by)
        for rank in range(1, len(basis) + 1):
            told = product.told(basis[:rank])[:, :, 0]
            assert torch.isfinite(told).all()
            if by != "pca":  # of rank one at most
                torch.testing.assert_close(told @ basis[:rank] @ x, rows.double() @ x, rtol=0, atol=1e-5)
        assert product.losses(basis)[-1] < 1e-9


def test_the_least_rank_within_a_tolerance() -> None:
    losses = falling(torch.tensor([6.0, 3.0, 1.0], dtype=torch.float64), 10.0)
    torch.testing.assert_close(losses, torch.tensor([1.0, 0.4, 0.1, 0.0], dtype=torch.float64))
    assert [least_rank(losses, each) for each in (1.0, 0.5, 0.4, 0.39, 0.1, 0.09, 0.0)] == [
        1,
        1,
        1,
        2,
        2,
        3,
        3,
    ]
    assert least_rank(falling(torch.zeros(3, dtype=torch.float64), 0.0), 0.0) == 1
    assert least_rank(torch.tensor([1.0, 0.5], dtype=torch.float64), 0.1) == 1  # none does: all there is


@pytest.mark.parametrize("shape", [(9, 4, 6), (3, 4, 6), (9, 4, 2)])
def test_principal_form_is_the_same_product(shape: tuple[int, int, int]) -> None:
    n, r, m = shape
    up, down = normal(n, r), normal(r, m, seed=1)
    frame, rest = principal(up, down)
    torch.testing.assert_close(frame @ rest, up @ down)
    assert frame.shape[1] == min(n, r, m)
    torch.testing.assert_close(frame.T @ frame, torch.eye(frame.shape[1], dtype=torch.float64))
    sizes = rest.norm(dim=1)
    assert (sizes[:-1] >= sizes[1:]).all()
