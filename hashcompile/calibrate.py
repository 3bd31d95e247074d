"""Calibration inputs, and the moments of the activations that they cause: what methods fit their codes to."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from hashcompile.core.errors import CalibrationError
from hashcompile.core.layers import CONSUMERS, Kind, Layer, Window, arguments
from hashcompile.core.method import Statistics
from hashcompile.core.parallel import deterministic_map
from hashcompile.core.signature import Batch, Inputs, Signature
from hashcompile.core.sweep import activation

PARTS = 4  # partial sums of a gram: enough for any pool, few enough to hold (K, K) float64 each
ENOUGH = 128  # output pixels for each weight of a row: neighbours say nearly the same, more only cost time
CHUNK = 1 << 24  # floats of unfolded input at a time: 64 MiB


def listed(calibration: Iterable[Inputs]) -> list[Inputs]:
    """All of them, which a generator tells once. Raises CalibrationError for what is no iterable of inputs."""
    if isinstance(calibration, (Tensor, dict, str)) or not isinstance(calibration, Iterable):
        raise CalibrationError(
            f"calibration must be an iterable of inputs like example_inputs, got one {type(calibration).__name__}: "
            "put it in a list"
        )
    return list(calibration)


def read_batches(calibration: Iterable[Inputs], signature: Signature) -> list[Batch]:
    """The calibration inputs as a checked list of flat tuples. Raises CalibrationError naming the batch."""
    batches = []
    for index, inputs in enumerate(listed(calibration)):
        try:
            batch = signature.read(inputs)
        except TypeError as error:
            raise CalibrationError(f"calibration batch {index}: {error}") from error
        for name, value in zip(signature.names, batch, strict=True):
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise CalibrationError(
                    f"calibration batch {index}: input {name!r} holds NaN or infinite values"
                )
        batches.append(tuple(value.detach() for value in batch))
    if not batches:
        raise CalibrationError(
            "calibration is empty: give some batches like example_inputs, or None for data-free"
        )
    if all(value.numel() == 0 for batch in batches for value in batch):
        raise CalibrationError("every calibration batch is empty: give at least one sample")
    return batches


def statistics(node: fx.Node, layer: Layer, inputs: Sequence[Tensor], before: Sequence[Tensor]) -> Statistics:
    """Sums over `inputs`, the activations in front of `node`, one a batch; `before` are those of the original model.

    Raises CalibrationError for inputs whose products are not finite.
    """
    found = sums(node, layer, inputs, before)
    for gram, side in ((found.gram_before, before), (found.gram, inputs)):
        if gram is not None and not bool(torch.isfinite(gram).all()):
            largest = max(float(x.abs().max()) for x in side if x.numel())
            raise CalibrationError(
                f"layer {layer.name}: its inputs on the calibration data reach {largest:.3g}, and their products are "
                "NaN or infinite: look for weights in front of it that are too large, or for such data"
            )
    return found


def sums(node: fx.Node, layer: Layer, inputs: Sequence[Tensor], before: Sequence[Tensor]) -> Statistics:
    """As `statistics`, whatever they are."""
    kind = CONSUMERS[node.target][0]
    if kind is Kind.EMBEDDING:
        counts = torch.stack([torch.bincount(ids.flatten(), minlength=layer.view.shape[0]) for ids in inputs])
        return Statistics(int(counts.sum()), row_counts=counts.sum(0).double())
    if kind is Kind.LINEAR:
        return moments(tokens(inputs), tokens(before), lambda x, _: x)
    if kind is Kind.CONV:
        window = Window.of(node, layer.view.shape)
        pieces = images(inputs, window)
        samples = sum(piece.shape[0] * pixels(piece, window) for piece in pieces)
        share = min(1.0, ENOUGH * layer.view.size[1] / max(1, samples))
        known = moments(
            pieces, images(before, window), lambda x, place: some(unfold(x, window), share, seed=place)
        )
        read = sum(piece.numel() for piece in pieces) / (window.groups * max(1, layer.view.size[1]))
        return replace(known, independent=min(known.independent, read))
    # Transposed convolution: taps of one input pixel go to different outputs; their overlap is neglected.
    groups = int(arguments(node)["groups"])
    channels, _, *kernel = layer.view.shape
    shape = (groups, channels // groups, -1)
    known = moments(inputs, before, lambda x, _: x.movedim(-len(kernel) - 1, 0).reshape(shape))
    taps = torch.eye(math.prod(kernel), dtype=torch.float64)

    def spread(grams: Tensor | None) -> Tensor:
        assert grams is not None
        return torch.stack([torch.kron(gram, taps) for gram in grams])

    gram = spread(known.gram)
    if known.cross is known.gram:
        return Statistics(known.count, known.independent, gram=gram, cross=gram, gram_before=gram)
    return Statistics(
        known.count,
        known.independent,
        gram=gram,
        cross=spread(known.cross),
        gram_before=spread(known.gram_before),
    )


def source_key(node: fx.Node, layer: Layer) -> Any:
    """Layers with equal keys have equal statistics: queries, keys and values read one input."""
    kind = CONSUMERS[node.target][0]
    window = Window.of(node, layer.view.shape) if kind in (Kind.CONV, Kind.CONV_TRANSPOSE) else None
    return activation(node), kind, window, layer.view.shape if kind is Kind.EMBEDDING else None


def moments(
    inputs: Sequence[Tensor], before: Sequence[Tensor], columns: Callable[[Tensor, int], Tensor]
) -> Statistics:
    """Moments of what `columns` makes of each piece, (S, K, samples), summed in an order fixed by their places."""
    places = range(len(inputs))
    intact = all(map(torch.equal, before, inputs))

    def part(first: int) -> list[Tensor]:
        sums = [torch.zeros((), dtype=torch.float64)] * (3 if intact else 6)
        for place in places[first::PARTS]:
            x = columns(inputs[place], place).float()
            terms = [torch.tensor(float(x.shape[-1])), (x @ x.mT).double(), x.sum(-1, dtype=torch.float64)]
            if not intact:
                old = columns(before[place], place).float()
                terms += [(old @ x.mT).double(), (old @ old.mT).double(), old.sum(-1, dtype=torch.float64)]
            sums = [total + term for total, term in zip(sums, terms, strict=True)]
        return sums

    with torch.no_grad():
        parts = deterministic_map(part, places[:PARTS])
        count, gram, total, *old = (functools.reduce(torch.add, sums) for sums in zip(*parts, strict=True))
    cross, gram_before, old_total = old or (gram, gram, total)
    samples = max(1, int(count))
    return Statistics(
        int(count),
        float(count),
        gram=gram,
        cross=cross,
        gram_before=gram_before,
        mean=total / samples,
        mean_before=old_total / samples,
    )


def some(columns: Tensor, share: float, seed: int) -> Tensor:
    """A share of the samples of (S, K, samples), drawn at random: a regular step would meet the same columns of an
    image again and again."""
    count = columns.shape[-1]
    if share >= 1 or not count:
        return columns
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: math.ceil(share * count)]
    return columns[..., drawn.sort().values]


def tokens(inputs: Sequence[Tensor]) -> list[Tensor]:
    """Activations (..., K) -> (1, K, samples)."""
    return [x.reshape(1, -1, x.shape[-1]).transpose(1, 2) for x in inputs]


def images(inputs: Sequence[Tensor], window: Window) -> list[Tensor]:
    """Activations (B, C, *spatial), or without B, cut along B so that what a piece unfolds to stays small."""
    pieces: list[Tensor] = []
    for x in inputs:
        x = x.unsqueeze(0) if x.ndim == len(window.kernel) + 1 else x
        unfolded = x.shape[1] * math.prod(window.kernel) * pixels(x, window)
        pieces += x.split(max(1, CHUNK // max(1, unfolded)))
    return pieces


def pixels(x: Tensor, window: Window) -> int:
    """Output pixels of one image of (B, C, *spatial)."""
    return math.prod(int(window.out_size(size, dim)) for dim, size in enumerate(x.shape[2:]))


def unfold(x: Tensor, window: Window) -> Tensor:
    """Inputs (B, C, *spatial) as the columns that the output pixels read: (groups, C/groups * taps, samples)."""
    batch, channels, *spatial = x.shape
    margins = reversed(list(zip(window.before, window.after, strict=True)))  # pad counts from the last dim
    padded = torch.nn.functional.pad(x, [amount for margin in margins for amount in margin])
    out = [int(window.out_size(size, dim)) for dim, size in enumerate(spatial)]
    taps = []
    for offset in itertools.product(*map(range, window.kernel)):
        region = padded
        for dim, position in enumerate(offset):
            start, stride = position * window.dilation[dim], window.stride[dim]
            region = region.narrow(dim + 2, start, stride * (out[dim] - 1) + 1)[
                (slice(None),) * (dim + 2) + (slice(None, None, stride),)
            ]
        taps.append(region.reshape(batch, channels, -1))
    columns = torch.stack(taps, 2)  # (B, C, taps, pixels)
    columns = columns.reshape(batch, window.groups, -1, columns.shape[-1])
    return columns.permute(1, 2, 0, 3).reshape(window.groups, columns.shape[2], -1)
