"""Ranges of activations: chosen well, kept with the model, and never used for other weights."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
from hashcompile.core.encoded import encoded_weights
from hashcompile.core.graph import CompressedGraph, rename
from hashcompile.core.rounding import MEASURED, Range, round_affine
from hashcompile.ranges import SIDE, Ranges, best_range, histogram, merge
from tests.lower.test_chain import MODELS, compiled
from tests.models import ZOO, build, generator, normal


def error(x: torch.Tensor, to: Range) -> float:
    return float((round_affine(x, *to) - x).double().square().mean())


SAMPLES = {
    "normal": torch.randn(40_000, generator=generator(0)),
    "relu": torch.randn(40_000, generator=generator(1)).relu(),
    "negative": -torch.rand(10_000, generator=generator(2)),
    "outliers": torch.cat([torch.randn(40_000, generator=generator(3)), torch.tensor([60.0, -3.0])]),
    "shifted": torch.randn(40_000, generator=generator(4)) * 3 + 2,
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_range_is_nearly_the_best_one(name: str) -> None:
    x = SAMPLES[name]
    found = best_range(*merge([histogram(part) for part in x.split(9_000)]))
    low, high = min(float(x.min()), 0), max(float(x.max()), 0)
    tried = [
        Range(scale, min(255, max(0, round(-low * b / scale))))
        for a in np.linspace(0.05, 1, 40)
        for b in np.linspace(0.05, 1, 40)
        if (scale := (high * a - low * b) / 255) > 0
    ]
    assert error(x, found) <= 1.1 * min(error(x, each) for each in tried)
    assert (found.zero == 0) == (low == 0) and (found.zero == 255) == (high == 0)
    assert float(round_affine(torch.zeros(1), *found)) == 0


def test_outliers_are_clipped_and_few_values_are_not() -> None:
    x = torch.cat([torch.randn(400_000, generator=generator(5)), torch.tensor([12.0])])
    assert best_range(*merge([histogram(x)])).scale * 255 < 0.8 * float(x.max() - x.min())
    assert best_range(*merge([histogram(torch.tensor([0.5, 1.0]))])).scale * 255 == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("x", [torch.zeros(10), torch.zeros(0), torch.tensor([math.nan, math.inf])])
def test_nothing_seen_is_measured_later(x: torch.Tensor) -> None:
    assert best_range(*merge([histogram(x)])) == MEASURED


def test_histograms_add_up() -> None:
    """Whatever the widths that the parts began with."""
    x = SAMPLES["shifted"]
    parts = [x[:10_000] * 1e-3, x[10_000:20_000], x[20_000:] * 7]
    counts, width = merge([histogram(part) for part in parts])
    places = torch.floor(torch.cat(parts).double() / width).long() + SIDE
    np.testing.assert_array_equal(counts, torch.bincount(places, minlength=2 * SIDE).numpy())


def tensors(path: Path) -> list[tuple[float, float]]:
    """(scale, zero) of every tensor of the first chain."""
    node = next(node for node in onnx.load(str(path)).graph.node if node.op_type == "Chain")
    given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    return list(zip(given["tensors"][::2], given["tensors"][1::2], strict=True))


def exported(model: hc.CompiledModel, path: Path) -> bytes:
    model.export_onnx(path)
    return path.read_bytes()


def test_ranges_in_the_file(tmp_path: Path) -> None:
    exported(compiled("resnet"), tmp_path / "m.onnx")
    image, *inner, last = tensors(tmp_path / "m.onnx")
    assert image[0] > 0 and 100 < image[1] < 156
    assert last == (0, 0), "it leaves, and nothing rounds it"
    assert inner[0] == inner[1], "a maximum keeps the range of what it was taken of"
    for number in (0, 2, 4, 5, 6):
        assert inner[number][0] > 0 and inner[number][1] == 0, "behind a ReLU"
    exported(compiled("resnet", calibrated=False), tmp_path / "free.onnx")
    assert set(tensors(tmp_path / "free.onnx")) == {(0, 0)}


def test_ranges_survive_saving(tmp_path: Path) -> None:
    model = compiled("resnet")
    model.save(tmp_path / "m.hc")
    loaded = hc.load(tmp_path / "m.hc")
    assert loaded.ranges == model.ranges and loaded.rounding_error == model.rounding_error
    assert exported(loaded, tmp_path / "b.onnx") == exported(model, tmp_path / "a.onnx")


def names(graph: CompressedGraph) -> list[str]:
    return [node.name for node in graph.graph.nodes if node.op == "call_function"]


def loaded_twice(model: hc.CompiledModel, path: Path, calibrated: bool = True) -> hc.CompiledModel:
    """Saved, loaded, saved and loaded, with the nodes and ranges that it had."""
    loaded = model
    for _ in range(2):
        loaded.save(path)
        loaded = hc.load(path)
        ours, theirs = (each.ranges.valid(each.graph_module) for each in (loaded, model))
        assert ours == theirs and (ours or not calibrated)
        assert names(loaded.graph_module) == names(model.graph_module)
    return loaded


def test_factors_keep_their_ranges(tmp_path: Path) -> None:
    """They are nodes that export would number otherwise; here the images behind them differ by a factor of 1000."""
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Conv2d(16, 16, 3, padding=1) for _ in range(4))).eval()
    with torch.no_grad():
        for factor, layer in zip((1, 100, 1, 0.01), net, strict=True):
            layer.weight.mul_(factor)
    inputs = normal(16, 8, 8)
    method = [{"0": hc.LowRank(rank=6, conv="channel")}, hc.Codebook(6)]
    model = hc.compile(net, inputs(4), method, [inputs(32)], progress=False)
    loaded = loaded_twice(model, tmp_path / "m.hc")
    assert "conv2d_default" in names(loaded.graph_module)
    assert exported(loaded, tmp_path / "b.onnx") == exported(model, tmp_path / "a.onnx")


class Halves(nn.Module):
    """A chain of convolutions begins with what is taken out of two."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(4, 32, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        _, half = self.first(x).relu().chunk(2, 1)
        return self.third(self.second(half).relu()).mean((2, 3))


def test_parts_keep_their_ranges(tmp_path: Path) -> None:
    """PyTorch traces them to what they are taken out of."""
    torch.manual_seed(0)
    inputs = normal(4, 8, 8)
    model = hc.compile(Halves().eval(), inputs(4), hc.Codebook(4), [inputs(32)], progress=False)
    loaded = loaded_twice(model, tmp_path / "m.hc")
    assert exported(loaded, tmp_path / "b.onnx") == exported(model, tmp_path / "a.onnx")


@pytest.mark.parametrize("name", ZOO)
def test_nodes_keep_their_names(name: str, tmp_path: Path) -> None:
    model, inputs = build(name)
    method = [hc.LowRank(rank=2), hc.Codebook(4)]
    compiled = hc.compile(model, inputs(4), method, [inputs(4)], progress=False)
    loaded_twice(compiled, tmp_path / "m.hc", calibrated=False)


def test_loading_says_that_ranges_are_of_other_weights(tmp_path: Path) -> None:
    model = compiled("two")
    with torch.no_grad():
        model.graph_module.one.bias.add_(1)
    model.save(tmp_path / "m.hc")
    with pytest.warns(
        UserWarning, match=r"m\.hc: its ranges of activations .* compiled\.calibrate\(inputs\)"
    ):
        loaded = hc.load(tmp_path / "m.hc")
    assert not loaded.ranges.valid(loaded.graph_module)


def test_ranges_of_nodes_that_have_other_names_now_are_not_used() -> None:
    model = compiled("two")
    graph = model.graph_module
    assert "relu" in model.ranges.valid(graph)
    rename(graph, {"relu": "conv2d_1", "conv2d_1": "relu"})
    assert not model.ranges.valid(graph)


def test_ranges_belong_to_their_weights(tmp_path: Path) -> None:
    model = compiled("two")
    before = exported(model, tmp_path / "m.onnx")
    codes: Any = encoded_weights(model.graph_module)["one.weight"]
    with torch.no_grad():
        codes.scale.mul_(2)
    exported(model, tmp_path / "m.onnx")
    assert set(tensors(tmp_path / "m.onnx")) == {(0, 0)}
    inputs = normal(*MODELS["two"][1])
    model = model.calibrate([inputs(16), inputs(9)])
    exported(model, tmp_path / "m.onnx")
    assert tensors(tmp_path / "m.onnx")[1][0] > 0
    with torch.no_grad():
        codes.scale.div_(2)
    model = model.calibrate([inputs(16), inputs(9)])
    assert exported(model, tmp_path / "m.onnx") == before
    with pytest.raises(hc.CalibrationError):
        model.calibrate([])


@pytest.mark.parametrize(
    "forged",
    [
        7,
        {},
        {"weights": "", "of": {"x": [1.0]}},
        {"weights": "", "of": {"x": [-1.0, 0]}},
        {"weights": "", "of": {"x": [math.nan, 0]}},
        {"weights": "", "of": {"x": [math.inf, 0]}},
        {"weights": "", "of": {"x": [1.0, 256]}},
        {"weights": "", "of": {"x": [1.0, "a"]}},
        {"weights": "", "of": [1, 2]},
    ],
)
def test_forged_ranges_are_refused(forged: Any) -> None:
    with pytest.raises(hc.ArtifactError):
        Ranges.restore(json.loads(json.dumps(forged)))
