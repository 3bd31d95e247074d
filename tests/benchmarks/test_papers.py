"""The experiments of benchmarks/papers: what they train and measure, on a network of a few units."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def papers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield lambda name: importlib.import_module(f"papers.{name}")
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("papers", "zoo", "contest"):
            del sys.modules[name]


def digits(count: int) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count) % 4
    draw = torch.Generator().manual_seed(0)
    return torch.eye(4)[labels].repeat(1, 4) + 0.1 * torch.randn(count, 16, generator=draw), labels


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4))


def test_training_goes_on_where_it_was_stopped(papers: Any, tmp_path: Path) -> None:
    train = papers("train")
    whole, parts = network(), network()
    train.train(whole, *digits(512), epochs=2, rate=0.1)
    train.train(parts, *digits(512), epochs=1, rate=0.1, keep=tmp_path / "net.safetensors")
    assert train.resume(network(), tmp_path / "net.safetensors") == 1
    again = network()
    train.train(again, *digits(512), epochs=2, rate=0.1, keep=tmp_path / "net.safetensors")
    assert train.resume(network(), tmp_path / "net.safetensors") == 2
    assert train.top1(whole, *digits(512)) > 95 and train.top1(again, *digits(512)) > 95


def test_masked_weights_stay_zero(papers: Any) -> None:
    train, measure = papers("train"), papers("measure")
    model = network()
    mask = measure.smallest_zero(model[0].weight.detach(), 0.75)
    assert int(mask.sum()) == 48
    assert float(model[0].weight[mask == 0].detach().abs().max()) <= float(
        model[0].weight.detach()[mask == 1].abs().min()
    )
    train.train(model, *digits(256), epochs=1, rate=0.1, masks={"0.weight": mask})
    assert bool((model[0].weight[mask == 0] == 0).all()) and bool((model[0].weight[mask == 1] != 0).all())


def test_every_way_makes_a_network_smaller(papers: Any) -> None:
    measure, subjects = papers("measure"), papers("subjects")
    model, data = network(), digits(512)
    papers("train").train(model, *data, epochs=4, rate=0.1)
    given = subjects.Subject(subjects.Name.lenet300, "tiny", model.eval(), data, data, 0.05)
    for way in papers("ways").ways():
        found = measure.point(given, way, way.strengths[-1], epochs=0)
        assert found.after is None and 0 < found.macs <= 1 and 0 < found.parameters <= 1
        assert found.macs < 1 or way.name.startswith("auto")
    tuned = measure.point(given, next(iter(papers("ways").ways())), 0.5, epochs=8)
    assert tuned.after is not None and tuned.after > max(90, tuned.before)
