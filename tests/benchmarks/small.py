"""A network of a few units, what it learns, and how far a training was kept."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


def digits(count: int) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count) % 4
    draw = torch.Generator().manual_seed(0)
    return torch.eye(4)[labels].repeat(1, 4) + 0.1 * torch.randn(count, 16, generator=draw), labels


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4))


def epochs_of(path: Path) -> float:
    return float(load_file(path)["epochs"])
