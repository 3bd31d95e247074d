"""Compensation for an encoded prefix: least squares, found by other means."""

from __future__ import annotations

import torch

from hashcompile.compensate import compensate


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """W (5, 12), X and X~ (80, 12)."""
    generator = torch.Generator().manual_seed(0)
    original = torch.randn(80, 12, generator=generator).double()
    return (
        torch.randn(5, 12, generator=generator).double(),
        original,
        original + 0.2 * torch.randn(80, 12, generator=generator),
    )


def test_is_the_ridge_regression_of_old_outputs_on_new_inputs() -> None:
    rows, old, new = inputs()
    found = compensate(rows, new.T @ new, old.T @ new, ridge=0.05)
    weight = (0.05 * (new.T @ new).diagonal().mean()).sqrt()
    design = torch.cat([new, weight * torch.eye(12)])
    target = torch.cat([old @ rows.T, weight * rows.T])
    torch.testing.assert_close(found, torch.linalg.lstsq(design, target).solution.T)


def test_brings_outputs_closer_on_the_calibration_inputs() -> None:
    rows, old, new = inputs()
    found = compensate(rows, new.T @ new, old.T @ new)
    assert (new @ found.T - old @ rows.T).norm() < 0.9 * (new @ rows.T - old @ rows.T).norm()


def test_an_intact_prefix_changes_nothing() -> None:
    rows, old, _ = inputs()
    for magnitude in (1.0, 1e-30, 1e30):
        weights = (rows * magnitude).float()
        torch.testing.assert_close(compensate(weights, old.T @ old, old.T @ old), weights, rtol=1e-5, atol=0)


def test_dead_inputs_leave_the_weights_alone() -> None:
    rows, old, new = inputs()
    old[:, 3] = new[:, 3] = 0
    torch.testing.assert_close(compensate(rows, new.T @ new, old.T @ new)[:, 3], rows[:, 3])
    nothing = torch.zeros(12, 12)
    assert torch.equal(compensate(rows, nothing, nothing), rows)


def test_lost_inputs_are_told_from_those_that_stay() -> None:
    """Held to a prior instead of the weights themselves, which have more inputs than are left."""
    rows, old, new = inputs()
    left, prior = new[:, :9], torch.randn(5, 9, generator=torch.Generator().manual_seed(1)).double()
    found = compensate(rows, left.T @ left, old.T @ left, ridge=0.05, prior=prior)
    weight = (0.05 * (left.T @ left).diagonal().mean()).sqrt()
    design = torch.cat([left, weight * torch.eye(9)])
    target = torch.cat([old @ rows.T, weight * prior.T])
    torch.testing.assert_close(found, torch.linalg.lstsq(design, target).solution.T)
    assert torch.equal(compensate(rows, torch.zeros(9, 9), torch.zeros(12, 9), prior=prior), prior)
