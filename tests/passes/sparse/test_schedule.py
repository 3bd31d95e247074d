"""Pruning in a training loop: the cubic, masks that hold, movement, and a checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc


def loop(steps: int, seed: int = 0, **given: Any) -> tuple[nn.Module, hc.PruningSchedule]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5))
    schedule = hc.PruningSchedule(model, **given)
    train(model, schedule, steps)
    return model, schedule


def train(model: nn.Module, schedule: hc.PruningSchedule, steps: int, optimizer: Any = None) -> None:
    optimizer = optimizer or torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(steps):
        x, y = batch(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        schedule.step()


def batch(step: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(32, 20, generator=torch.Generator().manual_seed(step))
    return x, x[:, :5].argmax(1)


def zeros(model: nn.Module) -> list[float]:
    return [float((value == 0).double().mean()) for value in model.parameters() if value.ndim > 1]


def test_the_cubic() -> None:
    _, schedule = loop(0, amount=0.9, initial=0.1, begin=10, end=110)
    assert schedule.sparsity(0) == schedule.sparsity(10) == pytest.approx(0.1)
    assert schedule.sparsity(110) == schedule.sparsity(500) == pytest.approx(0.9)
    assert schedule.sparsity(60) == pytest.approx(0.9 - 0.8 / 8)


@pytest.mark.parametrize("importance", ["magnitude", "movement"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_zeros_hold_whatever_the_optimizer_does(scope: Any, importance: Any) -> None:
    model, schedule = loop(60, amount=0.8, end=40, every=7, scope=scope, importance=importance)
    weights = [value for value in model.parameters() if value.ndim > 1]
    gone = sum(int((value == 0).sum()) for value in weights)
    assert gone == round(0.8 * sum(value.numel() for value in weights)) or scope == "layer"
    if scope == "layer":
        assert zeros(model) == pytest.approx([0.8, 0.8], abs=0.01)
    for name, mask in schedule.masks.items():
        assert not model.get_parameter(name)[~mask].any()


def test_masks_change_only_when_it_is_time() -> None:
    model, schedule = loop(10, amount=0.8, begin=10, end=40, every=10)
    seen = [zeros(model)[0]]
    for _ in range(30):
        train(model, schedule, 1)
        seen.append(zeros(model)[0])
    changes = [step for step in range(1, 31) if seen[step] != seen[step - 1]]
    assert seen[0] == 0 and changes == [10, 20, 30]


def test_movement_keeps_what_moves_away_from_zero() -> None:
    """By the scores written out; and what comes back has the value that it had."""
    weight = nn.Parameter(torch.tensor([[1.0, -2.0, 3.0, 0.5]]))
    model = nn.Module()
    model.register_parameter("w", weight)
    schedule = hc.PruningSchedule(model, 0.5, end=2, importance="movement", initial=0.5)
    pulls = [torch.tensor([[-1.0, 1.0, 1.0, 2.0]]), torch.tensor([[5.0, 1.0, -9.0, 0.0]])]
    weight.grad = pulls[0].clone()
    schedule.step()  # -w g: 1, 2, -3, -1
    assert torch.equal(weight.detach(), torch.tensor([[1.0, -2.0, 0.0, 0.0]]))
    weight.grad = pulls[1].clone()
    schedule.step()  # 1 - 5, 2 + 2, -3 + 27, -1
    assert torch.equal(weight.detach(), torch.tensor([[0.0, -2.0, 3.0, 0.0]]))


def test_training_then_storing() -> None:
    model, schedule = loop(80, amount=0.9, end=50, every=5)
    x, _ = batch(99)
    compiled = hc.compile(model.eval(), (x[:2],), method=hc.Sparse(0), compute="float")
    torch.testing.assert_close(compiled(x), model(x))
    assert compiled.report()["0"].bits_per_weight < 6
    assert len(schedule.masks) == 2


@pytest.mark.parametrize("importance", ["magnitude", "movement"])
def test_a_checkpoint_goes_on_where_it_was(importance: Any) -> None:
    given = {"amount": 0.8, "end": 30, "every": 3, "importance": importance}
    whole, optimizer = loop(0, **given), None
    optimizer = torch.optim.SGD(whole[0].parameters(), 0.1)
    train(*whole, 15, optimizer)
    state, weights = whole[1].state_dict(), {k: v.clone() for k, v in whole[0].state_dict().items()}
    state = {
        key: ({k: v.clone() for k, v in each.items()} if key != "steps" else each)
        for key, each in state.items()
    }
    train(*whole, 20, optimizer)
    again = loop(0, seed=5, **given)
    again[0].load_state_dict(weights)
    again[1].load_state_dict(state)
    train(*again, 20, torch.optim.SGD(again[0].parameters(), 0.1))
    for name, value in whole[0].state_dict().items():
        assert torch.equal(value, again[0].state_dict()[name])
    other = hc.PruningSchedule(nn.Linear(3, 3), **given)
    with pytest.raises(hc.ConfigError, match="other parameters"):
        other.load_state_dict(state)
    turned = "movement" if importance == "magnitude" else "magnitude"
    with pytest.raises(hc.ConfigError, match="another importance"):
        loop(0, **(given | {"importance": turned}))[1].load_state_dict(state)


@pytest.mark.parametrize(
    "given",
    [
        {"amount": 1.0, "end": 5},
        {"amount": 0.5, "initial": -0.1, "end": 5},
        {"amount": True, "end": 5},
        {"amount": 0.5, "end": 0},
        {"amount": 0.5, "end": 5, "begin": 5},
        {"amount": 0.5, "end": 5, "every": 0},
        {"amount": 0.5, "end": 5, "importance": "wanda"},
        {"amount": 0.5, "end": 5, "scope": "model"},
        {"amount": 0.5, "end": 5, "names": ["2.weight"]},
        {"amount": 0.5, "end": 5, "names": []},
    ],
)
def test_what_cannot_mean_anything(given: dict[str, Any]) -> None:
    with pytest.raises(hc.ConfigError, match="PruningSchedule"):
        hc.PruningSchedule(nn.Sequential(nn.Linear(3, 3)), **given)
