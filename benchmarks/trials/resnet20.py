"""CIFAR-10 ResNet-20 at 4 bits against every peer; `cifar` tells its accuracy."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from contest.prepared import prepared
from contest.subject import Recipe, Subject
from peers import ours
from peers.onnxruntime_fp32 import fp32_file
from zoo import cifar

from .claims import Claim, agreement, size
from .setting import Setting

NAME = "ResNet-20"


def subject() -> Subject:
    known, new = cifar.images("train", count=256).inputs, cifar.images("test", count=32).inputs
    return Subject(
        NAME,
        Recipe("zoo.cifar", "load", (20,)),
        {f"batch {batch}": {"images": new[:batch]} for batch in (1, 32)},
        {"images": {0: torch.export.Dim("batch")}},
        lambda: [{"images": images} for images in known.split(128)],
        kind="convolution",
    )


def trial(setting: Setting) -> Iterator[Claim]:
    images, build = subject(), setting.run.settings.build
    ready, fp32 = prepared(ours.PEER, images, build), fp32_file(images, build)
    for check in ours.checks(ready):
        yield agreement(NAME, check)
    yield size(NAME, "file", fp32.stat().st_size, ready.file_bytes)
    setting.run.measure(images, ready.file_bytes)
