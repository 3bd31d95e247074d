"""The model of `hashcompile demo` at 4 bits against every peer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from contest.subject import Recipe, Subject
from zoo import digits

from .claims import Claim
from .race import race
from .setting import Setting


def subject() -> Subject:
    known = digits.data()
    return Subject(
        "digits",
        Recipe("zoo.digits", "load"),
        {f"batch {batch}": {"input": known.test_images[:batch]} for batch in (1, 32)},
        {"input": {0: torch.export.Dim("batch")}},
        lambda: [{"input": images} for images in known.train_images.split(128)],
        kind="convolution",
    )


def trial(setting: Setting) -> Iterator[Claim]:
    yield from race(subject(), setting)
