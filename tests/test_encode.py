"""What calibration does to a layer: never harm, every use of a weight counted, and an error that is the true one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import hashcompile as hc
from hashcompile import compiler, encode, layer_task, pipeline
from tests.oracle import decoded, relative


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlated(samples: int, width: int, seed: int, tail: float = 1.0) -> Tensor:
    """Inputs whose directions differ in size as those of a trained model do: a spectrum that falls by a power."""
    mixing = torch.linalg.qr(torch.randn(width, width, generator=seeded(1)))[0]
    size = torch.arange(1, width + 1) ** -tail * width**0.5
    return torch.randn(samples, width, generator=seeded(seed)) * size @ mixing


def images(count: int, channels: int, size: int, seed: int) -> Tensor:
    """Smooth images, of correlated channels."""
    pixels = correlated(count * (size + 2) ** 2, channels, seed).reshape(count, size + 2, size + 2, channels)
    return functional.avg_pool2d(pixels.permute(0, 3, 1, 2), 3, stride=1)


@pytest.mark.parametrize("inputs", ["alike", "falling", "steep", "shifted"])
def test_few_samples_are_no_worse_than_none(inputs: str) -> None:
    """On inputs that calibration has not seen. The slack is one per cent of the error: what was drawn is random."""
    tail = {"alike": 0.0, "falling": 0.5, "steep": 1.0, "shifted": 0.5}[inputs]
    shift = 1.0 if inputs == "shifted" else 0.0

    def draw(count: int, seed: int) -> Tensor:
        return correlated(count, 512, seed, tail) + shift

    torch.manual_seed(0)
    model = nn.Linear(512, 40)
    unseen = draw(1000, 4)

    def error(calibration: Any) -> float:
        compiled = hc.compile(model, (draw(2, 2),), hc.Codebook(3), calibration)
        with torch.no_grad():
            return relative(compiled(unseen), model(unseen))

    free = error(None)
    for samples in (1, 4, 16, 64):
        assert error([(draw(samples, 3),)]) <= 1.01 * free, samples
    if inputs != "alike":
        assert error([(draw(2000, 3),)]) < 0.9 * free, "and many are better"


class Twice(nn.Module):
    """One weight that reads two kinds of inputs, in either order."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        conv = kind == "conv"
        self.shared = nn.Conv2d(32, 32, 3, padding=1) if conv else nn.Linear(128, 128)

    def uses(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.shared(x), self.shared(x.flip(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.uses(x)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_weight_used_twice_serves_both_uses(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Twice(kind)
    x, unseen = (
        images(64, 32, 6, seed) if kind == "conv" else correlated(1000, 128, seed) for seed in (1, 2)
    )
    free = hc.compile(model, (x[:2],), hc.Codebook(2))
    fitted = hc.compile(model, (x[:2],), hc.Codebook(2), [(x,)])
    assert not fitted.plan.refused, fitted.plan
    with torch.no_grad():
        for use, wanted in enumerate(model(unseen)):
            assert relative(fitted(unseen)[use], wanted) < relative(free(unseen)[use], wanted)
    fitted.export_onnx(tmp_path / "m.onnx")


class Language(nn.Module):
    """An embedding tied to a projection, which runs behind it or (of other inputs) before it."""

    def __init__(self, embedding_first: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(200, 64)
        nn.init.normal_(self.embed.weight, std=0.05)
        self.first = embedding_first

    def forward(self, ids: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.first:
            read = self.embed(ids)
            return read, functional.linear(read + x, self.embed.weight)
        scores = functional.linear(x, self.embed.weight)
        return self.embed(ids), scores


@pytest.mark.parametrize("embedding_first", [True, False])
def test_an_embedding_that_is_a_projection_too(embedding_first: bool) -> None:
    torch.manual_seed(0)
    model = Language(embedding_first)

    def draw(seed: int) -> tuple[Tensor, Tensor]:
        often = torch.rand(64, 20, generator=seeded(seed)).square() * 200
        return often.long(), correlated(64 * 20, 64, seed).reshape(64, 20, 64)

    free = hc.compile(model, draw(0), hc.Codebook(3))
    fitted = hc.compile(model, draw(0), hc.Codebook(3), [draw(1)])
    inputs = draw(2)
    with torch.no_grad():
        wanted = model(*inputs)
        lost = [[relative(y, w) for y, w in zip(c(*inputs), wanted, strict=True)] for c in (free, fitted)]
    assert lost[1][0] <= 1.02 * lost[0][0], "the embedding"
    assert lost[1][1] < lost[0][1], "the projection"


@pytest.mark.parametrize("groups", [1, 32])
def test_all_columns_of_an_image_are_met(groups: int) -> None:
    """7 x 7 pixels, of which only some are taken: a step of 7 would see one border column alone."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1, groups=groups))
    x, unseen = (images(1500, 32, 7, seed) * torch.linspace(4, 0.1, 7) for seed in (1, 2))
    free = hc.compile(model, (x[:2],), hc.Codebook(2))
    fitted = hc.compile(model, (x[:2],), hc.Codebook(2), [(part,) for part in x.split(500)])
    with torch.no_grad():
        wanted = model(unseen)
        assert relative(fitted(unseen), wanted) < relative(free(unseen), wanted)


def test_groups_are_fitted_under_their_own_inputs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(64, 64, 1, groups=2))
    halves = (correlated(2000, 32, seed) for seed in (1, 2, 3, 4))
    x, unseen = (
        torch.cat([a, b.flip(1)], 1).reshape(200, 10, 64).mT for a, b in zip(halves, halves, strict=True)
    )
    free = hc.compile(model, (x[:2],), hc.Codebook(2))
    fitted = hc.compile(model, (x[:2],), hc.Codebook(2), [(x,)])
    with torch.no_grad():
        wanted = model(unseen)
        assert relative(fitted(unseen), wanted) < 0.8 * relative(free(unseen), wanted)


@pytest.mark.parametrize("bits", [2, 8])
def test_the_reported_error_is_that_of_the_outputs(bits: int) -> None:
    """Of each layer: its outputs in the original model, and those that it has in the compressed one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 40, bias=False), nn.Linear(40, 33))
    x = torch.randn(300, 48, generator=seeded(1)) + 0.3
    compiled = hc.compile(model, (x[:2],), hc.Codebook(bits), [(x[:150],), (x[150:],)])
    with torch.no_grad():
        old = new = x.double()
        for name, layer in model.double().named_children():
            if isinstance(layer, nn.Linear):
                bias = 0.0 if layer.bias is None else layer.bias
                held = 0.0 if layer.bias is None else getattr(compiled.graph_module, name).bias.double()
                old, new = old @ layer.weight.T, new @ decoded(compiled, f"{name}.weight").T + held - bias
                # grams are summed in fp32: the difference of two close ones is known to 1e-3 of the outputs
                assert compiled.report()[name].error == pytest.approx(relative(new, old), rel=0.02, abs=1e-3)
                old, new = old + bias, new + bias
            else:
                old, new = layer(old), layer(new)


def test_the_reported_error_of_an_embedding_counts_what_is_read() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(90, 24))
    ids = (torch.rand(40, 10, generator=seeded(1)).square() * 90).long()
    compiled = hc.compile(model, (ids[:2],), hc.Codebook(2), [(ids,)])
    with torch.no_grad():
        assert compiled.report()["0"].error == pytest.approx(relative(compiled(ids), model(ids)), rel=1e-4)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


class Large(nn.Module):
    """Sums long enough that torch would cut them into one part a thread."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 32, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.fc = nn.Linear(32, 6000)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))


def test_saved_bytes_do_not_depend_on_threads(
    tmp_path: Path, threads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most sums agree by luck on any number of threads: what fixes them is that each has one."""
    seen = set()

    def spy(module: ModuleType, name: str) -> None:
        function = getattr(module, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            seen.add((name, torch.get_num_threads()))
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, counted)

    steps = (
        (compiler, "capture"),
        (compiler, "quality_of"),
        (pipeline, "refit_norms"),
        (encode, "statistics"),
        (layer_task, "row_sums"),
        (layer_task, "output_error"),
    )
    for module, name in steps:
        spy(module, name)
    torch.manual_seed(0)
    model = Large().eval()
    x = torch.randn(40, 8, 32, 32, generator=seeded(1))
    found = set()
    for count in (1, 2, 4):
        threads(count)
        compiled = hc.compile(model, (x[:2],), hc.Codebook(2), [(part,) for part in x.split(20)])
        assert torch.get_num_threads() == count
        compiled.save(tmp_path / "m.hc")
        found.add(hashlib.sha256((tmp_path / "m.hc").read_bytes()).hexdigest())
    assert len(found) == 1
    assert seen == {(name, 1) for _, name in steps}
