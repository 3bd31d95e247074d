"""The experiments of benchmarks/papers as they are imported by their scripts, and a network for them."""

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
            package, _, leaf = name.rpartition(".")
            if held := sys.modules.get(package):
                vars(held).pop(leaf, None)


@pytest.fixture
def four_shades(papers: Any) -> tuple[nn.Module, Tensor, Tensor]:
    """A convolutional network that tells images (256, 3, 8, 8) of four brightnesses apart, and those, with labels."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(288, 40)
    )
    labels = torch.arange(256) % 4
    noise = torch.randn(256, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = noise + labels[:, None, None, None]
    papers("train").train(model, images, labels, epochs=20, rate=0.1)
    return model, images, labels
