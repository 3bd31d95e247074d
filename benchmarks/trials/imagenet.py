"""ResNet-50, ResNet-18 and MobileNetV2 at 224 pixels with random weights: speed and size against every peer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from contest.subject import Recipe, Subject
from zoo import imagenet

from .claims import Claim
from .race import race
from .setting import Setting

BATCHES = (1, 8)
TARGET = 1.0  # times as fast as the fastest peer


def subject(network: str) -> Subject:
    return Subject(
        network,
        Recipe("zoo.imagenet", "load", (network,)),
        {f"batch {batch}": {"x": imagenet.images(batch)} for batch in BATCHES},
        {"x": {0: torch.export.Dim("batch")}},
        lambda: [{"x": imagenet.images(1, seed=seed)} for seed in range(1, 9)],
        kind="convolution",
        fitted=False,
    )


def trial(network: str, setting: Setting) -> Iterator[Claim]:
    yield from race(subject(network), setting, TARGET)
