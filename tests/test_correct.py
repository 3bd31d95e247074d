"""Correction: what can be told from the channels that stay is told, whatever the layer that reads them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
from hashcompile.correct import Stands

WIDTH, RANK = 12, 2


class Last(nn.Module):
    """A linear layer over channels that lie last."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.movedim(1, -1))


READERS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Conv2d(WIDTH, 5, 3, stride=2, padding=1, bias=False),
    "grouped": lambda: nn.Conv2d(WIDTH, 6, 3, groups=3),
    "depthwise": lambda: nn.Sequential(
        nn.Conv2d(WIDTH, WIDTH, 3, groups=WIDTH, bias=False), nn.Conv2d(WIDTH, 5, 1)
    ),
    "transposed": lambda: nn.ConvTranspose2d(WIDTH, 5, 3, bias=False),
    "transposed, few groups": lambda: nn.ConvTranspose2d(WIDTH, 6, 3, groups=2, bias=False),
    "transposed, many groups": lambda: nn.Sequential(
        nn.ConvTranspose2d(WIDTH, 12, 2, stride=2, groups=6, bias=False), nn.Conv2d(12, 5, 1)
    ),
    "transposed, depthwise": lambda: nn.Sequential(
        nn.ConvTranspose2d(WIDTH, 2 * WIDTH, 3, groups=WIDTH, bias=False), nn.Conv2d(2 * WIDTH, 5, 1)
    ),
    "norm": lambda: nn.Sequential(nn.Conv2d(WIDTH, 5, 3, bias=False), nn.BatchNorm2d(5)),
    "flattened": lambda: nn.Sequential(nn.Flatten(), nn.Linear(WIDTH * 25, 5)),
    "last": Last,
    "two": lambda: nn.Sequential(nn.Conv2d(WIDTH, 8, 1), nn.Conv2d(8, 4, 3)),
}
CONSTANTS = (
    "grouped",
    "norm",
    "last",
    "two",
)  # readers that have a place for a constant, and no border to spoil it
BETWEEN = (
    "depthwise",
    "transposed, many groups",
    "transposed, depthwise",
)  # layers that lose whole groups: another one reads what is left


def network(reader: str) -> nn.Module:
    """Twelve channels that are combinations of two, plus a constant each where the reader can tell it."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(3, WIDTH, 1, bias=reader in CONSTANTS), READERS[reader]()).double()
    with torch.no_grad():
        first = model[0].weight
        first.copy_(torch.tensordot(torch.randn(WIDTH, RANK).double(), first[:RANK], 1))  # type: ignore[arg-type, index, operator]
        if reader in BETWEEN:  # the same taps for all, or they would be no combinations any more
            model[1][0].weight.copy_(model[1][0].weight[:1].clone())  # type: ignore[index, operator, union-attr]
    return model.eval()


def pruned(reader: str, model: nn.Module, x: Tensor, correction: Any) -> hc.CompiledModel:
    method = {"*": None, "0": hc.PruneChannels(amount=0.5, correction=correction)}
    if reader in BETWEEN:
        method["1.0"] = method["0"]  # it goes with the layer before it
    return hc.compile(model, (x[:2],), method=method, calibration=list(zip(x.split(20), strict=True)))


@pytest.mark.parametrize("correction", ["fold", "refit"])
@pytest.mark.parametrize("reader", READERS)
def test_combinations_are_told(reader: str, correction: Any) -> None:
    model = network(reader)
    x, fresh = torch.randn(200, 3, 5, 5).double(), torch.randn(50, 3, 5, 5).double()
    wanted = model(fresh).detach()
    lost = []
    for how in (False, correction):
        compiled = pruned(reader, model, x, how)
        assert compiled.graph_module.state_dict()["0.weight"].shape[0] == WIDTH // 2
        lost.append(float((compiled(fresh) - wanted).detach().norm() / wanted.norm()))
    assert lost[0] > 0.1 and lost[1] < 1e-3 * lost[0]
    assert compiled.plan.reshaping is not None
    for each in compiled.plan.reshaping.corrected:
        assert each.after <= each.before


def test_what_is_behind_is_corrected_and_what_is_beside_is_not() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 20), nn.Linear(20, 8), nn.Linear(8, 3)
            self.other = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(self.a(x).relu()).relu()) + self.other(x)

    torch.manual_seed(0)
    model, x = Branches().eval(), torch.randn(300, 6)
    method = {"*": None, "a": hc.PruneChannels(amount=0.5, correction="refit")}
    compiled = hc.compile(model, (x[:2],), method=method, calibration=[(x,)])
    assert compiled.plan.reshaping is not None
    assert [each.layer for each in compiled.plan.reshaping.corrected] == ["b", "c"]
    state = compiled.graph_module.state_dict()
    assert torch.equal(state["other.weight"], model.other.weight)
    assert torch.equal(state["a.weight"], model.a.weight[compiled.plan.kept["a.weight"][0]])
    assert not torch.equal(state["c.weight"], model.c.weight)


@pytest.mark.parametrize(
    ("correction", "widest", "told"),
    [
        (
            "fold",
            11,
            r"12 inputs are more than the 11 whose .*: a constant at most makes up for what went: 1$",
        ),
        ("refit", 53, r"54 inputs, taps included, are more than the 53 of a refit: it is folded: 1$"),
        ("refit", 54, None),
    ],
)
def test_what_is_too_wide_says_so(
    correction: Any, widest: int, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hashcompile.reconstruct.WIDEST", widest)
    report = pruned("conv", network("conv"), torch.randn(40, 3, 5, 5).double(), correction).report()
    lines = [line for line in report.summary() if "corrected in part" in line]
    assert len(lines) == (told is not None)
    assert told is None or re.search(f"corrected in part, since {told}", lines[0])


def test_what_cannot_be_rewritten_says_so() -> None:
    model, ids = Tied().eval(), torch.randint(0, 20, (8, 6))
    method = hc.PruneChannels(amount=0.25, correction=True)
    compiled = hc.compile(model, (ids[:2],), method=method, calibration=[(ids,)])
    told = [line for line in compiled.report().summary() if line.startswith("not corrected")]
    assert told == [
        "not corrected, since head both makes and reads them, and cannot be changed for one alone: head"
    ]
    assert compiled.plan.reshaping is not None
    assert hc.Reshaping.restore(compiled.plan.reshaping.describe()) == compiled.plan.reshaping


def test_few_samples_do_no_harm() -> None:
    """Two of them, over four networks: neither their directions nor their means are trusted far."""
    lost = torch.zeros(3)
    for seed in range(4):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 5)).eval()
        x, fresh = torch.randn(2, 40), torch.randn(500, 40)
        wanted = model(fresh).detach()
        for place, how in enumerate((False, "fold", "refit")):
            method = hc.PruneChannels(amount=0.3, correction=how)  # type: ignore[arg-type]
            compiled = hc.compile(model, (x,), method=method, calibration=[(x,)])
            lost[place] += (compiled(fresh) - wanted).detach().norm()
    assert lost[1:].max() < 1.06 * lost[0]


def test_stands_as_a_matrix() -> None:
    stands = Stands.of(torch.tensor([2, 3, 6, 7]), 10)
    assert torch.equal(stands.matrix(1).nonzero(), torch.tensor([[2, 0], [3, 1], [6, 2], [7, 3]]))
    assert torch.equal(stands.matrix(2).nonzero(), torch.tensor([[1, 0], [3, 1]]))
    factor = torch.tensor([1.0, 1, 5, 5, 1, 1], dtype=torch.float64)
    merged = Stands(torch.tensor([0, 1, 0, 1, 2, 3]), factor)
    assert merged.matrix(2).tolist() == [[1, 0], [5, 0], [0, 1]]


class Shared(nn.Module):
    """Two branches, and what reads both of them with one weight; with one head, two weights in a row."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(12, 32), nn.Linear(12, 32), nn.Linear(16, 4)
        self.heads = nn.ModuleList([nn.Linear(32, 16) for _ in range(heads)])

    def forward(self, x: Tensor) -> Tensor:
        branches = ((self.a, self.heads[0]), (self.b, self.heads[-1]))
        return torch.cat([self.out(head(branch(x).relu()).relu()) for branch, head in branches], 1)


@pytest.mark.parametrize("heads", [1, 2])
def test_a_weight_with_several_uses_is_corrected_for_all_of_them(heads: int) -> None:
    """With two heads, the second one is corrected behind the first use of the weight that reads both."""
    torch.manual_seed(heads)
    data = torch.randn(1200, 4) @ torch.randn(4, 12)
    model, x, fresh = Shared(heads).eval(), data[:800], data[800:]
    wanted = model(fresh).detach()

    def lost(method: Any) -> float:
        compiled = hc.compile(model, (x[:2],), method=method, calibration=[(x,)])
        return float((compiled(fresh) - wanted).detach().norm() / wanted.norm())

    assert lost(hc.PruneChannels(0.4, correction=True)) < 0.7 * lost(hc.PruneChannels(0.4))
    assert (
        lost(hc.Interpolative(0.1)) < 0.13
    )  # the tolerance, and the calibration data are not the fresh ones


class Tied(nn.Module):
    """An embedding that is the output projection too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(20, 16), nn.Linear(16, 24), nn.Linear(24, 16)
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x: Tensor = self.embed(ids)
        return self.head(x + self.down(self.up(x).relu()))


@pytest.mark.parametrize(
    "method", [hc.MergeChannels(0.5, similarity=0.999, correction=False), hc.Interpolative(0.05)]
)
def test_columns_of_a_weight_that_makes_what_it_reads_are_not_summed(method: Any) -> None:
    torch.manual_seed(0)
    model, ids = Tied().eval(), torch.randint(0, 20, (64, 6))
    with torch.no_grad():  # twins, all over the stream
        for tensor in (model.embed.weight.T, model.down.weight, model.down.bias):
            tensor[8:] = tensor[:8]
    compiled = hc.compile(model, (ids[:2],), method=method, calibration=[(ids,)])
    wanted = model(ids).detach()
    assert float((compiled(ids) - wanted).detach().norm() / wanted.norm()) < 0.06
    assert len(compiled.plan.kept["head.weight"][1]) == 16
    assert compiled.plan.reshaping is not None
    reasons = {str(refusal): refusal.layer for refusal in compiled.plan.reshaping.refused}
    assert "both makes and reads them, and cannot be changed for one alone" in " ".join(reasons)
