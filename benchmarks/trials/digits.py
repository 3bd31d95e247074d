"""The model of `hashcompile demo` at 4 bits against every peer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from contest.prepared import prepared
from contest.subject import Recipe, Subject
from peers import ours
from peers.onnxruntime_fp32 import fp32_file
from zoo import digits

from .claims import Claim, agreement, size
from .setting import Setting

NAME = "digits"


def subject() -> Subject:
    known = digits.data()
    return Subject(
        NAME,
        Recipe("zoo.digits", "load"),
        {f"batch {batch}": {"input": known.test_images[:batch]} for batch in (1, 32)},
        {"input": {0: torch.export.Dim("batch")}},
        lambda: [{"input": images} for images in known.train_images.split(128)],
        kind="convolution",
    )


def trial(setting: Setting) -> Iterator[Claim]:
    images, build = subject(), setting.run.settings.build
    ready, fp32 = prepared(ours.PEER, images, build), fp32_file(images, build)
    for check in ours.checks(ready):
        yield agreement(NAME, check)
    yield size(NAME, "file", fp32.stat().st_size, ready.file_bytes)
    setting.run.measure(images, ready.file_bytes)
