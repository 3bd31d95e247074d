"""Pruning in a training loop: the cubic, masks that hold, movement, and a checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
from hashcompile.core.encoded import encoded_weights


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


def test_sparse_gradients_move_what_dense_ones_do() -> None:
    ids = torch.randint(0, 50, (16, 4), generator=torch.Generator().manual_seed(0))
    masks = []
    for sparse in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(50, 8, sparse=sparse), nn.Flatten(), nn.Linear(32, 5))
        schedule = hc.PruningSchedule(model, amount=0.5, end=6, importance="movement")
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(6):
            optimizer.zero_grad()
            model(ids).square().mean().backward()
            optimizer.step()
            schedule.step()
        masks.append(schedule.masks["0.weight"])
    assert torch.equal(*masks) and 0 < int(masks[0].sum()) < masks[0].numel()


def test_the_cubic() -> None:
    _, schedule = loop(0, amount=0.9, initial=0.1, begin=10, end=110)
    assert schedule.sparsity(0) == schedule.sparsity(10) == pytest.approx(0.1)
    assert schedule.sparsity(110) == schedule.sparsity(500) == pytest.approx(0.9)
    assert schedule.sparsity(60) == pytest.approx(0.9 - 0.8 / 8)


@pytest.mark.parametrize("to_none", [True, False])
def test_movement_without_gradients_is_refused(to_none: bool) -> None:
    """Scores of zero would leave rows by their places."""
    model = nn.Linear(6, 4)
    schedule = hc.PruningSchedule(model, 0.5, end=2, importance="movement")
    model(torch.ones(1, 6)).sum().backward()
    model.zero_grad(set_to_none=to_none)
    before = model.weight.detach().clone()
    with pytest.raises(hc.ConfigError, match=r"no weight has a gradient: .* zero_grad\(\) behind both"):
        schedule.step()
    assert schedule.steps == 0 and torch.equal(model.weight, before)
    model(torch.ones(1, 6)).sum().backward()
    schedule.step()
    model.weight.grad.zero_()  # of a batch for which the loss is satisfied
    schedule.step()
    model.weight.grad = None  # all is chosen
    schedule.step()
    assert schedule.steps == 3


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
        key: {k: v.clone() for k, v in each.items()} if isinstance(each, dict) else each
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


def test_the_state_of_another_schedule() -> None:
    given = {"amount": 0.8, "end": 30, "importance": "magnitude"}
    state = loop(0, **given)[1].state_dict()
    for name, value in {
        "amount": 0.7,
        "initial": 0.1,
        "begin": 1,
        "end": 31,
        "every": 2,
        "importance": "movement",
        "scope": "global",
    }.items():
        with pytest.raises(
            hc.ConfigError, match=f"the state is that of {name}=.*, this is of {name}={value!r}"
        ):
            loop(0, **(given | {name: value}))[1].load_state_dict(state)
    for name in state:
        part = {key: value for key, value in state.items() if key != name}
        with pytest.raises(hc.ConfigError, match=f"no entry '{name}'"):
            loop(0, **given)[1].load_state_dict(part)


def test_a_pattern_fills_step_by_step() -> None:
    """Of 4 stay 4, then 3, then 2, the largest; and a last run of 2 keeps both."""
    model, schedule = loop(0, pattern="2:4", end=10, names=["0.weight"])
    torch.nn.init.normal_(model[0].weight)  # type: ignore[index, arg-type]
    seen = []
    for _ in range(12):
        schedule.step()
        runs = (model[0].weight != 0).reshape(30, 5, 4).sum(2)  # type: ignore[index, union-attr]
        assert (runs == runs[0, 0]).all()
        seen.append(int(runs[0, 0]))
    assert seen == sorted(seen, reverse=True) and set(seen) == {4, 3, 2} and seen[8] > seen[9] == 2
    compiled = hc.compile(model.eval(), (torch.randn(2, 20),), {"0": hc.Sparse(0)}, compute="float")
    assert compiled.report()["0"].bits_per_weight == pytest.approx(17)


@pytest.mark.parametrize("importance", ["magnitude", "movement"])
def test_auto_takes_what_the_index_lets_go(importance: Any) -> None:
    """Round after round of what is left; a layer of few large weights loses more than one whose weights are alike."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 40))
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(40, 40) * 100 ** -torch.rand(40, 40))
        model[1].weight.fill_(0.3)
    schedule = hc.PruningSchedule(model, "auto", end=6, every=2, importance=importance)
    left = []
    for _ in range(8):
        for weight in model.parameters():
            weight.grad = -weight.detach()
        rows = model[0].weight.detach().flatten()
        before = rows[rows != 0].abs().double()
        schedule.step()
        left.append(1 - zeros(model)[0])
    index = 1 - float(before.sqrt().mean().square() / before.mean())
    assert left[0] == 1 and left[1] == left[2] > left[3] == left[4] > left[5] == left[7]
    assert 1 - left[5] / left[4] > 0.05 and index > 0
    assert zeros(model)[1] == 0
    with pytest.raises(hc.ConfigError, match="auto"):
        schedule.sparsity(3)


def test_what_a_code_computes_from_is_no_weight() -> None:
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5))
    hc.CodebookTraining(model, {"0": hc.Codebook(2, learn=True)}, steps=10)
    with pytest.raises(hc.ConfigError, match=r"0\.parametrizations\.weight\.0\.\w+ is no weight"):
        hc.PruningSchedule(model, 0.5, end=5)
    hc.PruningSchedule(model, 0.5, end=5, names=["2.weight"])
    graph = hc.compile(model.eval(), (torch.randn(2, 20),), {"0": hc.Codebook(2)}).graph_module
    with pytest.raises(hc.ConfigError, match=r"0\.weight\.codebook is no weight"):
        hc.PruningSchedule(graph, 0.5, end=5)


@pytest.mark.parametrize("importance", ["magnitude", "movement"])
@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize(
    ("shape", "fill"), [((1, 9), 1.0), ((9, 1), 1.0), ((6, 6), 0.0), ((6, 6), 0.37), ((0, 6), 0.0)]
)
def test_weights_of_few_values(shape: tuple[int, int], fill: float, scope: Any, importance: Any) -> None:
    weight = nn.Parameter(torch.full(shape, fill))
    other = nn.Parameter(torch.randn(4, 4))
    module = nn.ParameterDict({"a": weight, "b": other})
    schedule = hc.PruningSchedule(module, 0.5, end=3, scope=scope, importance=importance)
    for _ in range(4):
        weight.grad, other.grad = torch.ones_like(weight), torch.ones_like(other)
        schedule.step()
    assert torch.isfinite(weight).all() and torch.isfinite(other).all()
    if scope == "layer":
        assert int(schedule.masks["a"].sum()) == weight.numel() - round(0.5 * weight.numel())
    auto = hc.PruningSchedule(module, "auto", end=3)
    for _ in range(4):
        auto.step()


@pytest.mark.parametrize("importance", ["magnitude", "movement"])
def test_nan_is_told_by_name(importance: Any) -> None:
    model, schedule = loop(0, amount=0.5, end=5, importance=importance)
    for value in model.parameters():
        value.grad = torch.ones_like(value)
    model[2].weight.data[0, 0] = torch.nan  # type: ignore[index, union-attr]
    with pytest.raises(hc.WeightError, match=r"step 1: 2\.weight"):
        schedule.step()


def test_a_step_that_scaling_skipped_moves_no_score() -> None:
    """GradScaler leaves a step out whose gradients overflowed."""
    model, schedule = loop(2, amount=0.5, end=9, importance="movement")
    other, same = loop(2, amount=0.5, end=9, importance="movement")
    for each in (*model.parameters(), *other.parameters()):
        each.grad = torch.ones_like(each)
    model[0].weight.grad[0, 0] = torch.inf  # type: ignore[index, union-attr]
    other[0].weight.grad = None  # type: ignore[assignment]
    schedule.step()
    same.step()
    for name, mask in schedule.masks.items():
        assert torch.equal(mask, same.masks[name])


@pytest.mark.parametrize("groups", [1, 2])
def test_a_pattern_is_one_of_outputs(groups: int) -> None:
    """Which a transposed convolution holds by inputs."""
    torch.manual_seed(0)
    model = nn.ConvTranspose2d(8, 6, 2, bias=False, groups=groups)
    schedule = hc.PruningSchedule(model, pattern="2:4", end=1)
    schedule.step()
    compiled = hc.compile(model, (torch.randn(1, 8, 3, 3),), hc.Sparse(pattern="2:4"))
    (code,) = encoded_weights(compiled.graph_module).values()
    kept = code.view.rows(schedule.masks["weight"])
    assert torch.equal(kept.reshape(6, -1, 4).sum(2), torch.full((6, kept.shape[1] // 4), 2))
    if groups == 1:
        stored = hc.compile(model, (torch.randn(1, 8, 3, 3),), hc.Sparse(0))
        (same,) = encoded_weights(stored.graph_module).values()
        assert torch.equal(same.rows() != 0, kept)


@pytest.mark.parametrize("importance", ["magnitude", "movement"])
def test_a_share_below_one_leaves_a_weight(importance: Any) -> None:
    layer = nn.Linear(24, 1)
    schedule = hc.PruningSchedule(layer, 0.99, end=1, importance=importance)
    layer.weight.grad = torch.ones_like(layer.weight)
    schedule.step()
    assert int(schedule.masks["weight"].sum()) == 1
