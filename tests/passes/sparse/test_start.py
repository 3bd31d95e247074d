"""Pruning before training: the statistics of batch norms, losses that tell nothing, and layers that would be empty."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
from hashcompile.core.encoded import encoded_weights
from hashcompile.passes.sparse.masks import of_all
from hashcompile.passes.sparse.weight import SparseWeight


def masks(compiled: hc.CompiledModel) -> dict[str, Tensor]:
    codes = encoded_weights(compiled.graph_module)
    return {name: code.mask for name, code in codes.items() if isinstance(code, SparseWeight)}


def normed() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 12, 3, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Conv2d(12, 12, 3, bias=False), nn.InstanceNorm2d(12, track_running_stats=True), nn.ReLU()),
        *(nn.Conv2d(12, 12, 3, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.Flatten()),
        nn.Linear(48, 5),
    )
    return model, 3 * torch.randn(40, 3, 8, 8) + 1, torch.randint(5, (40,))


@pytest.mark.parametrize("importance", ["snip", "grasp"])
def test_norms_take_the_statistics_of_the_batch(importance: str) -> None:
    """Against the formulas on the module itself as it trains, but for its dropout, in float64."""
    model, x, y = normed()

    def loss(outputs: Tensor, _: int) -> Tensor:
        return nn.functional.cross_entropy(outputs, y)

    trains = copy.deepcopy(model).double().train()
    trains[3].eval()
    weights = {name: value for name, value in trains.named_parameters() if value.ndim > 1}
    first = torch.autograd.grad(loss(trains(x.double()), 0), list(weights.values()), create_graph=True)
    if importance == "grasp":
        norm = torch.stack([(g * g.detach()).sum() for g in first]).sum()
        product = torch.autograd.grad(norm, list(weights.values()))
        scores = [(w * g).detach() for w, g in zip(weights.values(), product, strict=True)]
    else:
        scores = [(w * g).detach().abs() for w, g in zip(weights.values(), first, strict=True)]
    joined = torch.cat([each.flatten() for each in scores])
    cut = joined.sort().values[round(0.9 * len(joined))]

    method = hc.Sparse(0.9, importance=importance, scope="global", loss=loss)
    compiled = hc.compile(model, (x[:2],), method, [(x,)])
    got = masks(compiled)
    slack = 1e-3 * joined.abs().max()  # float32 through three norms, twice
    for name, score in zip(weights, scores, strict=True):
        mask = got[name].reshape(score.shape)
        assert bool(mask[score > cut + slack].all()) and not bool(mask[score < cut - slack].any())
    for name, value in compiled.graph_module.named_buffers():
        if "running" in name:
            assert torch.equal(value, model.get_buffer(name))


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda y, _: (y.sum() * 0).sqrt(), "gradient is NaN"),
        (lambda y, _: y.detach().sum(), "does not hang on any weight"),
        (lambda y, _: y.sum() * torch.inf, "the loss is (nan|-?inf)"),
        (lambda y, _: y.square(), r"a tensor of the shape \(40, 5\)"),
        (lambda y, _: 3.0, "of the type float"),
    ],
)
@pytest.mark.parametrize("importance", ["snip", "grasp"])
def test_losses_that_are_none(loss: Any, said: str, importance: str) -> None:
    model, x, _ = normed()
    with pytest.raises(hc.CalibrationError, match=f"calibration batch 0: .*{said}") as caught:
        hc.compile(model, (x[:2],), hc.Sparse(0.5, importance=importance, loss=loss), [(x,)])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("importance", ["snip", "grasp"])
@pytest.mark.parametrize("loss", [lambda y, _: 0 * y.sum(), lambda y, _: y[:, :2].square().mean()])
def test_scores_of_nothing_are_no_order(importance: str, loss: Any) -> None:
    """Where the loss hangs on no weight, and where a layer has no part in it."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(6, 2), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.used(x), self.unused(x)], 1)

    x = torch.randn(9, 6)
    method = hc.Sparse(0.5, importance=importance, loss=loss)
    with pytest.raises(hc.ConfigError, match=r"all scores of (un)?used\.weight are 0"):
        hc.compile(Two(), (x[:2],), method, [(x,)])


@pytest.mark.parametrize("importance", ["magnitude", "snip"])
def test_no_layer_is_emptied(importance: str) -> None:
    """Of one whose weights are much smaller than all others the best stays, and the report tells the rest."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 16))
    with torch.no_grad():
        model[0].weight *= 1e-6
        model[0].bias.zero_()
    x = torch.randn(50, 16)
    method = hc.Sparse(0.9, importance=importance, scope="global")
    compiled = hc.compile(model, (x[:2],), method, [(x,)] if importance == "snip" else None)
    found = masks(compiled)
    assert sum(int(mask.sum()) for mask in found.values()) == round(0.1 * 1024)
    if importance == "magnitude":
        assert int(found["0.weight"].sum()) == 1
        assert bool(found["0.weight"].flatten()[model[0].weight.abs().argmax()])
        assert "0: 31 of 32 rows keep no weight" in str(compiled.report())
    assert compiled(x).std(0).max() > 0


def test_the_floor_is_one_weight_a_layer() -> None:
    scores = {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([5.0, 6.0, 7.0]), "c": torch.zeros(0, 4)}
    kept = {amount: of_all(scores, amount) for amount in (0.0, 0.6, 0.99)}
    assert {name: int(mask.sum()) for name, mask in kept[0.0].items()} == {"a": 2, "b": 3, "c": 0}
    for amount in (0.6, 0.99):
        assert torch.equal(kept[amount]["a"], torch.tensor([[False, True]]))
        assert torch.equal(kept[amount]["b"], torch.tensor([False, False, True]))
        assert kept[amount]["c"].shape == (0, 4)
