"""How far the outputs of a compressed layer are from those of the original one: what the report says of a layer."""

from __future__ import annotations

import torch
from torch import Tensor

from hashcompile.core.method import Statistics


def output_error(rows: Tensor, decoded: Tensor, known: Statistics, shift: Tensor | None = None) -> float:
    """||Y0 - Y|| / ||Y0||, with Y0 = X0 W' of the original layer and Y = X D' + shift of the compressed one.

    Args:
        rows, decoded: W and D, (N, K), the original weights and those that the layer computes with now.
        known: of the layer's inputs; without any, the error is that of the weights.
        shift: (N,), what was added to the bias.

    Row by row, over `count` samples with grams G = X'X, C = X0'X, G0 = X0'X0 and means m, m0,

        sum (w x0 - d x - s)^2 = w G0 w' - 2 w C d' + d G d' - 2 s count (w m0 - d m) + count s^2

    and the first three terms are (w - d) G (w - d)' + w (G0 - G) w' - 2 w (C - G) d', in which nothing cancels where
    the inputs are those of the original model.
    """
    before, after = rows.double(), decoded.double()
    if known.gram is None:
        weight = torch.ones(len(rows), dtype=torch.float64) if known.row_counts is None else known.row_counts
        lost, whole = ((x.square().sum(1) * weight).sum() for x in (before - after, before))
        return relative(lost, whole)
    gram, cross, gram_before = known.gram, known.cross, known.gram_before
    assert cross is not None and gram_before is not None
    sets = (len(gram), -1, rows.shape[1])
    w, d = before.reshape(sets), after.reshape(sets)
    gap = w - d
    lost = (gap @ gram * gap).sum((1, 2)) + ((w @ (gram_before - gram) - 2 * d @ (cross - gram).mT) * w).sum(
        (1, 2)
    )
    if shift is not None:
        assert known.mean is not None and known.mean_before is not None
        s = shift.double().reshape(sets[:2])
        off = (w @ known.mean_before[:, :, None] - d @ known.mean[:, :, None])[..., 0]
        lost = lost + known.count * (s * (s - 2 * off)).sum(1)
    return relative(lost.sum(), (w @ gram_before * w).sum())


def relative(lost: Tensor, whole: Tensor) -> float:
    """sqrt(lost / whole), 0 where there was nothing to lose."""
    return float((lost.clamp_min(0) / whole).sqrt()) if whole > 0 else 0.0
