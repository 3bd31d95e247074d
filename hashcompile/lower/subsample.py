"""Slices and pads that only leave out rows and columns of an image, and put channels of zeros around the others.

`x[:, :, ::2, ::2]`, padded with channels, is the shortcut without weights of He et al., Deep Residual Learning for
Image Recognition, arXiv 1512.03385 (option A).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from hashcompile.core.layers import Window, arguments

aten = torch.ops.aten
END = sys.maxsize  # of a slice: wherever the values end


@dataclass(frozen=True)
class Subsample:
    """Every stride-th value of each spatial dim, between channels of zeros."""

    stride: tuple[int, ...]
    before: int = 0
    after: int = 0

    def then(self, other: Subsample) -> Subsample:
        """Both, one behind the other."""
        stride = tuple(a * b for a, b in zip(self.stride, other.stride, strict=True))
        return Subsample(stride, self.before + other.before, self.after + other.after)

    @property
    def window(self) -> Window:
        """One pixel, that moves by the strides."""
        ones, zeros = (1,) * len(self.stride), (0,) * len(self.stride)
        return Window(ones, self.stride, zeros, zeros, ones, 1)

    @property
    def is_copy(self) -> bool:
        return set(self.stride) == {1} and not self.before and not self.after


def subsample_of(node: fx.Node) -> Subsample | None:
    """What a slice or a pad of an image (B, C, *spatial) does, where that is all it does."""
    match node.target:
        case aten.slice.Tensor:
            return of_slice(arguments(node), node.meta["val"].ndim)
        case aten.pad.default | aten.constant_pad_nd.default:
            return of_pad(arguments(node), node.meta["val"].ndim)
    return None


def of_slice(given: Mapping[str, Any], rank: int) -> Subsample | None:
    dim, step = given["dim"] % rank, given["step"]
    size = given["self"].meta["val"].shape[dim]
    end = END if given["end"] is None else given["end"]
    if given["start"] not in (None, 0) or not isinstance(end, int):
        return None
    if end != END and not (isinstance(size, int) and end >= size):
        return None
    if dim < 2 and step != 1:
        return None
    return Subsample(tuple(step if i == dim else 1 for i in range(2, rank)))


def of_pad(given: Mapping[str, Any], rank: int) -> Subsample | None:
    """`pad` has two numbers for each dim, from the last dim on."""
    if given.get("mode", "constant") != "constant" or given["value"] not in (None, 0):
        return None
    pad = [*given["pad"], *[0] * (2 * rank - len(given["pad"]))]
    spatial = 2 * (rank - 2)
    before, after = pad[spatial : spatial + 2]
    if any((*pad[:spatial], *pad[spatial + 2 :])):
        return None
    if not all(isinstance(count, int) and count >= 0 for count in (before, after)):
        return None
    return Subsample((1,) * (rank - 2), before, after)
