"""Sampled columns: unbiased, with the variance of the theory, and honest beside a truncated SVD."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hashcompile as hc
from hashcompile.passes.lowrank.draw import draw, probabilities
from hashcompile.passes.lowrank.product import Product
from tests import models


def test_the_mean_over_draws_is_the_product_and_the_loss_is_that_of_the_theory() -> None:
    torch.manual_seed(0)
    rows = torch.randn(5, 8, dtype=torch.float64)
    x = torch.randn(8, 30, dtype=torch.float64) * torch.arange(1, 9)[:, None]
    product = Product.of(rows, 8, x @ x.T)
    chance = probabilities(product)
    norms = rows.norm(dim=0) * x.norm(dim=1)
    torch.testing.assert_close(chance, norms / norms.sum())
    count, runs = 4, 4000
    mean, loss = torch.zeros(5, 30, dtype=torch.float64), []
    for seed in range(runs):
        columns, factor = draw(product, count, seed)
        got = (rows[:, columns] * factor) @ x[columns]
        mean += got / runs
        loss.append(float((got - rows @ x).square().sum()))
    exact = rows @ x
    wanted = float(norms.sum() ** 2 - exact.square().sum()) / count
    spread = torch.tensor(loss).std() / runs**0.5
    assert abs(sum(loss) / runs - wanted) < 5 * float(spread)
    assert float((mean - exact).square().sum()) < 5 * wanted / runs


def test_a_product_of_nothing_draws_evenly() -> None:
    product = Product.of(torch.zeros(3, 4), 4, None)
    torch.testing.assert_close(probabilities(product), torch.full((4,), 0.25, dtype=torch.float64))
    columns, factor = draw(product, 3, 0)
    assert len(columns) == len(factor) <= 3 and (columns.diff() > 0).all()


@pytest.mark.parametrize("name", ["mlp", "cnn", "conv1d"])
def test_in_the_pipeline(name: str, tmp_path: Path) -> None:
    model, inputs = models.build(name)
    method = [hc.Sampled(share=0.5), hc.Codebook(6)]
    compiled = hc.compile(model, inputs(2), method=method, calibration=[inputs(20)])
    reshaping = compiled.plan.reshaping
    assert reshaping is not None and reshaping.factored
    for done in reshaping.factored:
        columns = compiled.plan.kept[done.parameter][1]
        assert len(columns) == done.ranks[0] and (columns.diff() > 0).all()
        assert done.after.macs < done.before.macs and done.after.parameters < done.before.parameters
        assert done.svd_error is not None and 0 < done.svd_error < done.error
    assert reshaping.after.macs < reshaping.before.macs
    assert "truncated SVD at equal cost" in str(compiled.report())
    compiled.export_onnx(tmp_path / "m.onnx")
    compiled.save(tmp_path / "m.hc")
    again = hc.load(tmp_path / "m.hc")
    assert torch.equal(again(*inputs(3)), compiled(*inputs(3)))
    assert again.plan.reshaping is not None and again.plan.reshaping.factored == reshaping.factored


def test_the_seed_decides() -> None:
    model, inputs = models.build("mlp")
    kept = [
        hc.compile(model, inputs(2), method=hc.Sampled(columns=10, seed=seed))
        .plan.kept["0.weight"][1]
        .tolist()
        for seed in (0, 0, 1)
    ]
    assert kept[0] == kept[1] != kept[2]


def test_the_rescaled_columns_are_what_the_layer_computes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 7)).eval()
    compiled = hc.compile(model, (torch.randn(2, 12),), method=hc.Sampled(columns=5))
    columns = compiled.plan.kept["0.weight"][1]
    x = torch.zeros(3, 12)
    x[:, [i for i in range(12) if i not in columns]] = 1e6  # what is not read does not matter
    torch.testing.assert_close(compiled(x), model[0].bias.detach().expand(3, 7))
    x = torch.randn(40_000, 12, generator=torch.Generator().manual_seed(1))
    ratio = compiled.graph_module.state_dict()["0.weight"] / model[0].weight.detach()[:, columns]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
    norms = model[0].weight.detach().norm(dim=0)
    times = ratio[0] * 5 * norms[columns] / norms.sum()  # how often each was drawn
    torch.testing.assert_close(times, times.round())
    assert int(times.round().sum()) == 5


def test_what_stays_has_its_reason() -> None:
    for name, reason in (("depthwise", "grouped"), ("transposed", "transposed"), ("embedding", "looked up")):
        model, inputs = models.build(name)
        compiled = hc.compile(model, inputs(2), method=hc.Sampled(share=0.5))
        assert compiled.plan.reshaping is not None
        assert any(reason in refusal.reason for refusal in compiled.plan.reshaping.refused)
    model, inputs = models.build("mlp")
    reshaping = hc.compile(model, inputs(2), method=hc.Sampled(columns=60)).plan.reshaping
    assert reshaping is not None
    (refusal,) = reshaping.refused
    assert refusal.layer == "0" and "60 draws are no fewer than its 50 inputs" in refusal.reason


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"columns": 4, "share": 0.5},
        {"columns": 0},
        {"columns": True},
        {"columns": 1.5},
        {"share": 0},
        {"share": 1.0},
        {"share": "0.5"},
        {"share": 0.5, "seed": -1},
    ],
)
def test_what_cannot_mean_anything(arguments: dict[str, Any]) -> None:
    with pytest.raises(hc.ConfigError, match="Sampled"):
        hc.Sampled(**arguments)


@pytest.mark.parametrize(
    "seed", [7, 25, 37]
)  # of those whose second columns lie within the first ones' number
def test_a_layer_that_is_sampled_twice_reads_what_the_plan_says(seed: int) -> None:
    torch.manual_seed(seed)
    model, x = nn.Sequential(nn.Linear(6, 8, bias=False)), torch.randn(64, 6)
    method = [hc.Sampled(columns=columns, seed=seed) for columns in (5, 2)]
    compiled = hc.compile(model, (x[:2],), method, compute="float")
    columns = compiled.plan.kept["0.weight"][1]
    wanted = x[:, columns] @ compiled.graph_module.get_parameter("0.weight").T
    torch.testing.assert_close(compiled(x), wanted)


class Named(nn.Module):
    """Has a buffer where the columns of its layer would lie."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.layer.register_buffer("weight_columns", torch.arange(8.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        columns: torch.Tensor = self.layer.weight_columns  # type: ignore[assignment]
        return self.layer(x) + columns


def test_what_the_model_has_by_that_name_stays() -> None:
    torch.manual_seed(0)
    model, x = Named(), torch.randn(16, 8)
    graph = hc.compile(model, (x[:2],), hc.Sampled(share=0.5)).graph_module
    assert torch.equal(graph.get_buffer("layer.weight_columns"), torch.arange(8.0))
    assert graph.get_buffer("layer.weight_columns_").dtype == torch.int64
