"""Weight -> WideWeight, or the reason why a layer is better left alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hashcompile.core.errors import CalibrationError
from hashcompile.core.layers import Kind, Layer
from hashcompile.core.method import Compute, Statistics
from hashcompile.passes.wide.codes import fit_rows
from hashcompile.passes.wide.config import Wide
from hashcompile.passes.wide.sketch import Geometry, Index, sketch
from hashcompile.passes.wide.weight import Measured, WideWeight, digest

BITS = (64, 128, 256, 512, 1024)
CHUNK = 256  # inputs whose distances are in memory at once


def refuse(layer: Layer, config: Wide) -> str | None:
    """A layer that is no linear one, has few rows, or whose outputs the model computes with."""
    if Kind.LINEAR not in layer.kinds:
        return f"it is a layer of the kind {layer.kind}: only outputs of linear layers can be left out"
    if layer.view.size[0] < config.classes:
        return f"not wide: {layer.view.size[0]} classes, fewer than {config.classes}"
    if not layer.final:
        return (
            "not final: its outputs do not leave the model, or more than a choice of the best is made of them"
        )
    return None


def encode(
    weight: Tensor, layer: Layer, config: Wide, statistics: Statistics, compute: Compute
) -> WideWeight:
    """An index over the rows of `weight`: made for one half of the inputs that were seen, measured on the other.

    Raises CalibrationError.
    """
    rows, seen = weight.detach().float().contiguous(), statistics.seen
    if seen is None or seen.inputs is None or len(seen.inputs) < 2:
        raise CalibrationError(f"layer {layer.name}: calibration shows fewer than two inputs of it")
    if not torch.isfinite(seen.inputs).all():
        raise CalibrationError(f"layer {layer.name}: calibration gave inputs that are NaN or infinite")
    known, held = seen.inputs[::2], seen.inputs[1::2]
    codes = fit_rows(rows, config.code_bits, known.double().square().mean(0)) if config.code_bits else None
    rows = rows if codes is None else codes().detach()
    row_bytes = 4 * rows.shape[1] if codes is None else codes.row_bytes
    geometry = Geometry.of(rows, seen.bias, known)
    best = scores(known, rows, seen.bias).argmax(1)
    found = []
    for bits in (config.bits,) if config.bits else BITS:
        index = fitted(geometry, known, best, bits, config)
        found.append((bytes_read(index, known, row_bytes), index))
    _, index = min(found, key=lambda pair: pair[0])
    measured = measure(index, rows, seen.bias, held, config.recall)
    return WideWeight(layer.view, rows if codes is None else codes, index, measured)


def scores(inputs: Tensor, rows: Tensor, bias: Tensor | None) -> Tensor:
    return torch.nn.functional.linear(inputs.float(), rows, bias)


def fitted(geometry: Geometry, inputs: Tensor, best: Tensor, bits: int, config: Wide) -> Index:
    """The threshold which the best rows of that share of the inputs reach."""
    index = sketch(geometry, bits, config.seed)
    reached = []
    for some, right in zip(inputs.split(CHUNK), best.split(CHUNK), strict=True):
        distance = index.distances(some).gather(1, right[:, None])[:, 0]
        estimate = geometry.length[right] * torch.cos(math.pi / bits * distance) + geometry.offset[right]
        reached.append(estimate)
    lost = math.floor((1 - config.recall) * len(inputs))
    threshold = float(torch.cat(reached).sort().values[lost])
    return Index(index.planes, index.start, index.sketches, geometry.limits(threshold, bits))


def bytes_read(index: Index, inputs: Tensor, row_bytes: int) -> float:
    """Of an input: planes, sketches, and the rows that are near."""
    near = torch.cat([index.candidates(some).sum(1) for some in inputs[: 2 * CHUNK].split(CHUNK)])
    return index.planes.nbytes + index.sketches.nbytes + row_bytes * float(near.double().mean())


def measure(index: Index, rows: Tensor, bias: Tensor | None, inputs: Tensor, asked: float) -> Measured:
    """Recall of the best and of the ten best, and the share of rows that are computed."""
    first, ten, share = [], [], []
    for some in inputs.split(CHUNK):
        near = index.candidates(some)
        met = near.gather(1, scores(some, rows, bias).topk(min(10, len(rows)), dim=1).indices).double()
        first.append(met[:, 0])
        ten.append(met.mean(1))
        share.append(near.double().mean(1))
    best, best_ten, computed = (float(torch.cat(part).mean()) for part in (first, ten, share))
    return Measured(best, best_ten, computed, len(inputs), digest(rows), asked)
