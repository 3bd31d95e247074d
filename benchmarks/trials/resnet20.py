"""CIFAR-10 ResNet-20 at 4 bits against every peer; `cifar` tells its accuracy."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from contest.subject import Recipe, Subject
from zoo import cifar

from .claims import Claim
from .race import race
from .setting import Setting


def subject() -> Subject:
    known, new = cifar.images("train", count=256).inputs, cifar.images("test", count=32).inputs
    return Subject(
        "ResNet-20",
        Recipe("zoo.cifar", "load", (20,)),
        {f"batch {batch}": {"images": new[:batch]} for batch in (1, 32)},
        {"images": {0: torch.export.Dim("batch")}},
        lambda: [{"images": images} for images in known.split(128)],
        kind="convolution",
    )


def trial(setting: Setting) -> Iterator[Claim]:
    yield from race(subject(), setting)
