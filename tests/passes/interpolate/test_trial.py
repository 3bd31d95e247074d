"""A trial of some units is what surgery and a fold would make of the model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hashcompile.capture import capture
from hashcompile.core.sweep import sweep
from hashcompile.passes.channels import find_groups
from hashcompile.passes.channels.costs import unit_costs
from hashcompile.passes.channels.readings import readings
from hashcompile.passes.interpolate.trial import Trial, telling
from tests import models
from tests.channels import adversarial


@pytest.mark.parametrize("name", models.ZOO)
def test_all_units_lose_nothing(name: str) -> None:
    model, inputs = models.build(name)
    captured = capture(model, inputs(2))
    groups = find_groups(captured.graph, captured.example).groups
    trial = Trial(captured.graph, [inputs(4)])
    for group, seen in zip(groups, readings(captured.graph, groups, [inputs(4)]), strict=True):
        if seen:
            assert trial.error(group, seen, torch.arange(group.count)) < 1e-10


@pytest.mark.parametrize("kind", ["linear", "grouped", "transposed", "flattened"])
def test_is_what_the_layer_makes_of_what_it_is_told(kind: str) -> None:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 12, 1)
    rest: dict[str, list[nn.Module]] = {
        "linear": [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)],
        "grouped": [nn.Conv2d(12, 6, 3, groups=3)],
        "transposed": [nn.ConvTranspose2d(12, 4, 2, 2)],
        "flattened": [nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(12 * 25, 5)],
    }
    model = nn.Sequential(first, *rest[kind]).double().eval()
    x = torch.randn(6, 3, 5, 5, dtype=torch.float64)
    captured = capture(model, (x[:2],))
    groups = find_groups(captured.graph, captured.example).groups
    (group,) = (each for each in groups if "0" in each.layers)
    ((seen,),) = readings(captured.graph, [group], [(x,)])
    kept = torch.tensor([0, 2])
    told = telling(seen, kept)
    unit = next(axis.unit for axis in group.axes if axis.parameter == "0.weight")
    with torch.no_grad():
        y = model[:-1](x)
        lanes = y.view(6, 12, -1)
        means = seen.mean[unit]
        matrix = torch.zeros(12, 12, dtype=torch.float64)
        for a in range(12):
            for b in range(12):
                same_group = kind != "grouped" or a // 4 == b // 4
                matrix[a, b] = told[unit[a], unit[b]] if same_group else 0.0
        new = means[:, None] + torch.einsum("ab,nbp->nap", matrix, lanes - means[:, None])
        got, wanted = model[-1](new.reshape(y.shape)), model[-1](y)
    expected = float((got - wanted).square().sum() / wanted.square().sum())
    assert Trial(captured.graph, [(x,)]).error(group, [seen], kept) == pytest.approx(expected, rel=1e-6)
    assert expected > 1e-3


def test_inputs_and_graph_stay_as_they_are() -> None:
    model, inputs = models.build("cnn")
    captured = capture(model, inputs(2))
    batch = inputs(4)
    before, copies = sweep(captured.graph, [batch]), [value.clone() for value in batch]
    groups = find_groups(captured.graph, captured.example).groups
    seen = readings(captured.graph, groups, [batch])
    assert Trial(captured.graph, [batch]).error(groups[0], seen[0], torch.tensor([0])) > 0
    assert all(map(torch.equal, batch, copies))
    assert all(map(torch.equal, before[0], sweep(captured.graph, [batch])[0]))


def test_costs_are_multiply_accumulates() -> None:
    """A 3x3 convolution over 8x8 pixels into 6 channels, which a strided one of 10 reads."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 10, 3, 2, padding=1)).eval()
    x = torch.randn(2, 3, 8, 8)
    captured = capture(model, (x,))
    groups = find_groups(captured.graph, captured.example).groups
    (cost,) = unit_costs(captured.graph, groups, captured.example)
    assert cost.tolist() == [2 * (64 * 27 + 16 * 9 * 10)] * 6


@pytest.mark.parametrize("name", list(adversarial.CUT)[:6])
def test_every_unit_costs_something(name: str) -> None:
    torch.manual_seed(0)
    model, inputs = adversarial.CUT[name]()
    captured = capture(model.eval(), inputs)
    groups = find_groups(captured.graph, captured.example).groups
    assert all(bool((cost > 0).all()) for cost in unit_costs(captured.graph, groups, captured.example))
