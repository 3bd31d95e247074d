"""MNIST and Fashion-MNIST, and the networks that papers on pruning train on them."""

from __future__ import annotations

import gzip
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from . import data


class Images(NamedTuple):
    inputs: Tensor  # (n, 1, 28, 28) float32, 0 to 1
    labels: Tensor  # (n,) int64


def images(folder: str, split: str, count: int | None = None, seed: int = 0) -> Images:
    """`folder` is "mnist" or "fashion_mnist", `split` "train" or "test": all in order, or a random `count`.

    Raises MissingDataError.
    """
    stem = "train" if split == "train" else "t10k"
    pixels = _idx(folder, f"{stem}-images-idx3-ubyte.gz").reshape(-1, 1, 28, 28)
    labels = _idx(folder, f"{stem}-labels-idx1-ubyte.gz")
    which = np.arange(len(labels))
    if count is not None:
        which = np.sort(np.random.default_rng(seed).permutation(which)[:count])
    return Images(
        torch.from_numpy(pixels[which]).float() / 255, torch.from_numpy(labels[which].astype(np.int64))
    )


def _idx(folder: str, name: str) -> np.ndarray:
    """The array of an idx file: four bytes that end with the number of dims, then each dim as a big-endian int32."""
    raw = gzip.decompress(data.require(folder, name).read_bytes())
    dims = raw[3]
    shape = np.frombuffer(raw, ">i4", dims, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(shape)


class LeNet5(nn.Module):
    """LeNet-5 as Caffe has it: 20 and 50 channels, 500 units, no activation behind the convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 1, 28, 28)` -> `logits: (B, 10)`."""
        x = nn.functional.max_pool2d(self.conv1(x), 2)
        x = nn.functional.max_pool2d(self.conv2(x), 2)
        return self.fc2(self.fc1(x.flatten(1)).relu())


def lenet5() -> LeNet5:
    """The trained one. Raises MissingDataError."""
    model = LeNet5()
    with np.load(data.require("lenet_mnist", "lenet.npz")) as archive:
        stored = {name: torch.from_numpy(archive[name]) for name in archive.files}
    short = {"weight": "w", "bias": "b"}
    names = {name: name.split(".") for name in model.state_dict()}
    model.load_state_dict({name: stored[f"{layer}_{short[leaf]}"] for name, (layer, leaf) in names.items()})
    return model.eval()


def lenet300() -> nn.Module:
    """LeNet-300-100, not trained."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def mlp(hidden: int) -> nn.Module:
    """Two wide hidden layers, not trained."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 10),
    )


def vgg(width: int) -> nn.Module:
    """VGG-16 with batch norms for 28 x 28 images, not trained; `width` channels in its first block, 64 in the paper."""
    layers: list[nn.Module] = []
    into = 1
    for block, (repeats, times) in enumerate(((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))):
        for _ in range(repeats):
            layers += [
                nn.Conv2d(into, width * times, 3, padding=1, bias=False),
                nn.BatchNorm2d(width * times),
                nn.ReLU(),
            ]
            into = width * times
        layers.append(nn.MaxPool2d(2) if block < 4 else nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(into, 10))
