"""Nearest allowed values and soft mixtures of them: against brute force, gradients against differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hashcompile.core import assign
from hashcompile.core.assign import nearest, soft, straight_through, within


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("entries", [2, 3, 16, 256])
def test_nearest(entries: int) -> None:
    table, values = normal(entries, seed=1), normal(500, 3)
    found = nearest(values, table)
    assert found.dtype == torch.uint8 and found.shape == values.shape
    assert torch.equal(found.long(), (values[..., None] - table).abs().argmin(-1))


def test_nearest_at_the_rim() -> None:
    table = torch.tensor([1.0, -1.0, 1.0])
    infinite = torch.tensor([-torch.inf, -1.0, 0.0, 1e-6, torch.inf])
    assert table[nearest(infinite, table).int()].tolist() == [-1, -1, -1, 1, 1]
    assert nearest(torch.empty(0), table).numel() == 0
    assert nearest(torch.tensor([torch.nan]), table).item() < 3


@pytest.mark.parametrize("margin", [0.0, 1 / 64, 1.0])
@pytest.mark.parametrize("entries", [2, 7])
def test_within(entries: int, margin: float) -> None:
    table, values = normal(entries, seed=1), normal(1000)
    indices = torch.randint(entries, values.shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    moved = within(values, table, indices, margin)
    gap = (moved[:, None] - table).abs()
    assert bool((gap.gather(1, indices.long()[:, None])[:, 0] <= gap.amin(1) + 1e-12).all())
    right = nearest(values, table) == indices
    assert not bool(right.all()) and torch.equal(moved[right], values[right]), (
        "those that fit stay as they are"
    )
    if margin:
        assert torch.equal(nearest(moved, table), indices)


def test_within_takes_either_of_two_equal_entries() -> None:
    table = torch.tensor([0.5, 0.5, 2.0])
    moved = within(torch.zeros(3), table, torch.tensor([0, 1, 2], dtype=torch.uint8))
    assert table[nearest(moved, table).int()].tolist() == [0.5, 0.5, 2.0]


def test_straight_through() -> None:
    values, table = normal(40).requires_grad_(), normal(4, seed=1).requires_grad_()
    above, indices = normal(40, seed=2), nearest(normal(40), normal(4, seed=1))
    for slope in (1.0, 0.0):
        result = straight_through(values, table, indices, slope)
        assert torch.equal(result, table[indices.int()])
        by_value, by_entry = torch.autograd.grad(result, (values, table), above)
        assert torch.equal(by_value, slope * above)
        wanted = torch.stack([above[indices == entry].sum() for entry in range(4)])
        torch.testing.assert_close(by_entry, wanted, rtol=1e-12, atol=1e-12)


def mixture(values: Tensor, table: Tensor, temperature: Tensor) -> Tensor:
    return torch.softmax(-((values[..., None] - table) ** 2) / temperature, -1) @ table


@pytest.mark.parametrize("temperature", [3.0, 0.5, 0.05])
@pytest.mark.parametrize("entries", [2, 5, 16])
def test_soft(entries: int, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one block and in several, the last of them a part: values and gradients of the plain formula."""
    heat, above = torch.tensor(temperature, dtype=torch.float64), normal(7, 3, seed=2)
    values, table = normal(7, 3).requires_grad_(), normal(entries, seed=1).requires_grad_()
    wanted = mixture(values, table, heat)
    slopes = torch.autograd.grad(wanted, (values, table), above)
    for block in (1, 4 * entries, 1 << 20):
        monkeypatch.setattr(assign, "BLOCK", block)
        got = soft(values, table, heat)
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
        found = torch.autograd.grad(got, (values, table), above)
        torch.testing.assert_close(found, slopes, rtol=1e-9, atol=1e-11)
    assert torch.autograd.gradcheck(lambda v, t: soft(v, t, heat), (values, table))


def test_soft_becomes_nearest() -> None:
    table, values = torch.tensor([-1.0, 0.25, 2.0]), torch.linspace(-3, 3, 50)
    cold = soft(values, table, torch.tensor(1e-4))
    torch.testing.assert_close(cold, table[nearest(values, table).int()], rtol=1e-6, atol=1e-6)
    same = torch.full((4,), 0.5, requires_grad=True)
    soft(values, same, torch.tensor(1.0)).sum().backward()
    assert same.grad is not None and bool(torch.isfinite(same.grad).all())
    assert soft(torch.empty(0, 3), table, torch.tensor(1.0)).shape == (0, 3)


class Largest(TorchDispatchMode):
    """The most numbers that any tensor has had."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(each, Tensor):
                self.numel = max(self.numel, each.numel())
        return result


def test_soft_is_bounded_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor of values x entries, neither on the way, nor kept for the way back."""
    monkeypatch.setattr(assign, "BLOCK", 1024)
    values, table = normal(64, 64).requires_grad_(), normal(64, seed=1).requires_grad_()
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with Largest() as seen, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        soft(values, table, torch.tensor(0.1, dtype=torch.float64)).sum().backward()
    assert seen.numel <= values.numel() and 64 * values.numel() > 16 * seen.numel
    assert sum(kept) <= values.numel() + table.numel() + 1
