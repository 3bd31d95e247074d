"""The CIFAR-10 ResNets of He et al. 2016, section 4.2 (option A shortcuts), and CIFAR-10 as JPEG."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

from . import data

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut that subsamples and pads channels with zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.padding = stride, (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, H, W)` -> `(B, outputs, H / stride, W / stride)`."""
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.padding:
            x = nn.functional.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding)
            )
        return (y + x).relu()


class ResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels, (depth - 2) / 6 blocks each."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        blocks = (depth - 2) // 6
        self.layer1 = _stage(16, 16, 1, blocks)
        self.layer2 = _stage(16, 32, 2, blocks)
        self.layer3 = _stage(32, 64, 2, blocks)
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """`images: (B, 3, 32, 32) float32`, normalised -> `logits: (B, 10)`."""
        x = self.bn1(self.conv1(images)).relu()
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))


def _stage(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
    rest = (Block(outputs, outputs, 1) for _ in range(blocks - 1))
    return nn.Sequential(Block(inputs, outputs, stride), *rest)


class Wide(nn.Module):
    """A block of ResNet-18 and -34: shortcuts that change shape are a 1 x 1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = inputs == outputs and stride == 1
        projection = (nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Sequential() if same else nn.Sequential(*projection)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, H, W)` -> `(B, outputs, H / stride, W / stride)`."""
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + self.shortcut(x)).relu()


def resnet34() -> nn.Sequential:
    """ResNet-34 for images of 32 x 32, not trained: a 3 x 3 stem, no pooling in front, 64 to 512 channels."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    inputs = 64
    for outputs, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            layers.append(Wide(inputs, outputs, 2 if block == 0 and outputs > 64 else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def load(depth: int) -> ResNet:
    """The trained network of 20 or 56 layers. Raises MissingDataError."""
    model = ResNet(depth)
    path = data.require("cifar10_resnet", f"resnet{depth}.safetensors")
    model.load_state_dict(safetensors.torch.load_file(path))
    return model.eval()


class Images(NamedTuple):
    inputs: Tensor  # (n, 3, 32, 32) float32, normalised
    labels: Tensor  # (n,) int64


def images(split: str, count: int | None = None, seed: int = 0) -> Images:
    """The `split` ("train" or "test"): all of it in order, or a random `count`. Raises MissingDataError."""
    with np.load(data.require("cifar10", f"{split}_jpeg.npz")) as archive:
        jpeg, offsets, labels = archive["jpeg"], archive["offsets"], archive["labels"]
    which = np.arange(len(labels))
    if count is not None:
        which = np.sort(np.random.default_rng(seed).permutation(which)[:count])
    pixels = np.stack([_decode(jpeg[offsets[i] : offsets[i + 1]].tobytes()) for i in which])
    inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return Images(((inputs - mean) / std).contiguous(), torch.from_numpy(labels[which].astype(np.int64)))


def _decode(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
