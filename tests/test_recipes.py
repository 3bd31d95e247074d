"""Deep Compression as one call: what is pruned, shared, trained and stored; what is refused before it takes time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
from hashcompile.core.encoded import encoded_weights
from hashcompile.passes.sparse.weight import SparseCodes

STEPS = 20


def network() -> tuple[nn.Module, Tensor, Tensor]:
    """Trained a little, on a task that it can learn."""
    torch.manual_seed(0)
    x = torch.randn(128, 1, 8, 8)
    y = (x[:, 0, :4].sum((1, 2)) > 0).long() + 2 * (x[:, 0, :, :4].sum((1, 2)) > 0).long()
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 32), nn.ReLU(), nn.Linear(32, 4)
    )
    trained(model, x, y, 40)
    return model.eval(), x, y


def trained(
    module: nn.Module, x: Tensor, y: Tensor, steps: int, step: Callable[[], None] = lambda: None
) -> None:
    optimizer = torch.optim.SGD(module.parameters(), 0.05, 0.9)
    for _ in range(steps):
        nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
        step()
        optimizer.zero_grad()


class Trainer:
    """Counts its calls, and notes the modes and losses that it met."""

    def __init__(self, x: Tensor, y: Tensor, steps: int = 2 * STEPS) -> None:
        self.x, self.y, self.steps = x, y, steps
        self.modules: list[nn.Module] = []
        self.modes: list[bool] = []
        self.losses: list[tuple[float, float]] = []

    def loss(self, module: nn.Module) -> float:
        with torch.no_grad():
            return float(nn.functional.cross_entropy(module(self.x), self.y))

    def __call__(self, module: nn.Module, step: Callable[[], None]) -> None:
        self.modules.append(module)
        self.modes.append(module.training)
        before = self.loss(module)
        trained(module, self.x, self.y, self.steps, step)
        self.losses.append((before, self.loss(module)))


def codes_of(compiled: hc.CompiledModel) -> dict[str, SparseCodes]:
    found = {}
    for name, code in encoded_weights(compiled.graph_module).items():
        assert isinstance(code, SparseCodes)
        found[name] = code
    return found


def test_from_a_trained_network_to_a_file(tmp_path: Path) -> None:
    model, x, y = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train = Trainer(x, y)
    compiled = hc.recipes.deep_compression(
        model, (x[:2],), train, steps=STEPS, every=5, amount={"*": 0.8, "5": 0.5}, calibration=[(x,)]
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert train.modes == [True, True]
    assert train.modules[0] is not model
    assert train.modules[1] is compiled.graph_module
    assert not compiled.graph_module.training
    _, (shared, tuned) = train.losses
    assert tuned < shared, "the tables have learnt"

    codes = codes_of(compiled)
    for name, share, bits in (("0.weight", 0.8, 8), ("3.weight", 0.8, 5), ("5.weight", 0.5, 5)):
        mask = codes[name].mask
        assert int(mask.sum()) == mask.numel() - round(share * mask.numel()), name
        assert codes[name].bits == bits, "the paper's: 8 for convolutions, 5 for others"
        kept = train.modules[0].get_parameter(name).detach() != 0
        assert torch.equal(codes[name].view.rows(kept), mask), "what pruning left is what is stored"

    compiled.save(tmp_path / "coded.hc")
    compiled.save(tmp_path / "packed.hc", entropy=False)
    assert (tmp_path / "coded.hc").stat().st_size < (tmp_path / "packed.hc").stat().st_size
    assert torch.equal(hc.load(tmp_path / "coded.hc")(x), compiled(x))
    assert compiled.export_onnx(tmp_path / "m.onnx"), "verified"


def test_layers_bits_and_a_loop_of_its_own_for_the_tables() -> None:
    model, x, y = network()
    train, fine_tune = Trainer(x, y), Trainer(x, y, steps=1)
    compiled = hc.recipes.deep_compression(
        model,
        (x[:2],),
        train,
        steps=STEPS,
        every=5,
        amount={"*": 0.7, "0": None},
        bits={"3": 2},
        fine_tune=fine_tune,
    )
    assert [len(each.modules) for each in (train, fine_tune)] == [1, 1]
    codes = codes_of(compiled)
    assert {name: code.bits for name, code in codes.items()} == {"3.weight": 2, "5.weight": 5}
    assert bool((train.modules[0].get_parameter("0.weight") != 0).all())
    assert "no glob" in str(compiled.plan["0"].reason)


def test_nothing_goes_and_all_is_shared() -> None:
    model, x, y = network()
    compiled = hc.recipes.deep_compression(
        model, (x[:2],), Trainer(x, y), steps=STEPS, amount=0, bits=3, every=5
    )
    assert {code.bits for code in codes_of(compiled).values()} == {3}
    assert all(bool(code.mask.all()) for code in codes_of(compiled).values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"amount": 1.5}, "amount must be a share from 0 to below 1"),
        ({"amount": {"head": 0.5}}, "no layer matches 'head'"),
        ({"amount": {"*": None}}, "no layer is to be pruned"),
        ({"bits": 9}, "bits must be a whole number from 1 to 8"),
        ({"bits": {"0": 0}}, "bits must be a whole number from 1 to 8"),
        ({"bits": {"fc*": 4}}, "no layer matches 'fc\\*'"),
        *(({"steps": steps}, "steps=.*whole number from 1 on") for steps in (0, 2.5, "x", True)),
        ({"every": 0}, "every=0.*whole number from 1 on"),
        ({"train": None}, "train=None.*wanted a function"),
        ({"fine_tune": 3}, "fine_tune=3.*wanted a function"),
        ({"compute": "int7"}, "compute='int7'"),
    ],
)
def test_what_is_wrong_is_told_before_anything_trains(arguments: dict[str, Any], message: str) -> None:
    model, x, _ = network()

    def train(module: nn.Module, step: Callable[[], None]) -> None:
        raise AssertionError("trained")

    with pytest.raises(hc.ConfigError, match=message):
        hc.recipes.deep_compression(model, (x[:2],), **{"steps": STEPS, "train": train, **arguments})


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (3, "must be an iterable"),
        ([], "calibration is empty"),
        ([(torch.full((2, 1, 8, 8), torch.nan),)], "batch 0: .* NaN"),
        ([(torch.ones(2, 3),)], "batch 0"),
    ],
)
def test_data_that_do_not_fit_are_told_before_anything_trains(calibration: Any, message: str) -> None:
    model, x, _ = network()
    with pytest.raises(hc.CalibrationError, match=message):
        hc.recipes.deep_compression(
            model, (x[:2],), lambda *_: pytest.fail("trained"), steps=STEPS, calibration=calibration
        )


class Tied(nn.Module):
    """An embedding and a projection of one weight, which has the name of the first of them."""

    def __init__(self, first: str) -> None:
        super().__init__()
        parts = {"embed": nn.Embedding(64, 16), "project": nn.Linear(16, 64, bias=False)}
        for name in sorted(parts, key=first.__ne__):
            self.add_module(name, parts[name])
        parts["project"].weight = parts["embed"].weight

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.project(self.embed(ids))  # type: ignore[operator]
        return out


@pytest.mark.parametrize("first", ["embed", "project"])
def test_a_weight_of_two_layers(first: str) -> None:
    torch.manual_seed(0)
    model, ids = Tied(first), torch.randint(0, 64, (8, 4))

    def train(module: nn.Module, step: Callable[[], None]) -> None:
        for _ in range(2):
            step()

    compiled = hc.recipes.deep_compression(model, (ids,), train, steps=2, every=1, amount=0.75)
    (code,) = codes_of(compiled).values()
    smallest = model.embed.weight.detach().abs().flatten().argsort()[: 48 * 16]  # type: ignore[operator, union-attr]
    assert int(code.mask.sum()) == 16 * 16 and not bool(code.mask.flatten()[smallest].any())


def test_training_that_ends_before_pruning() -> None:
    model, x, y = network()
    with pytest.raises(hc.ConfigError, match=r"train called step\(\) 10 times"):
        hc.recipes.deep_compression(model, (x[:2],), Trainer(x, y, steps=10), steps=STEPS)


def test_training_that_explodes() -> None:
    model, x, y = network()

    def explode(module: nn.Module, step: Callable[[], None]) -> None:
        for value in module.parameters():
            value.data.fill_(torch.nan)

    with pytest.raises(hc.WeightError, match="NaN"):
        hc.recipes.deep_compression(model, (x[:2],), Trainer(x, y), steps=STEPS, every=5, fine_tune=explode)
