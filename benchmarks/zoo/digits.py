"""The small CNN of `hashcompile demo`, and the handwritten digits it is trained on."""

from __future__ import annotations

from functools import cache

from torch import nn

from hashcompile import demo


@cache
def data() -> demo.Digits:
    return demo.load_digits()


def load() -> nn.Module:
    """Trained here: seconds, and the same weights each time."""
    return demo.train(data())
