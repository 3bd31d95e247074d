"""A weight that several nodes read: what each of them shows it, and one gram for all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, fx

from hashcompile.calibrate import statistics
from hashcompile.core.layers import Layer
from hashcompile.core.method import Statistics
from hashcompile.core.signature import Batch
from hashcompile.core.sweep import walk
from hashcompile.shrinkage import noise_share, shrunk


def tied_statistics(
    original: fx.GraphModule, layers: Iterable[Layer], batches: Sequence[Batch]
) -> dict[str, list[Statistics]]:
    """Statistics of every use of the weights with several, by parameter: from the original model, since a weight is
    replaced in front of its first use, and its last runs behind that.
    """
    tied = {name: layer for layer in layers if len(layer.consumers) > 1 for name in layer.consumers}
    found: dict[str, list[Statistics]] = {}
    if tied and batches:
        for node, inputs in walk(original, batches):
            if layer := tied.get(node.name):
                found.setdefault(layer.parameter, []).append(statistics(node, layer, inputs, inputs))
    return found


def joined(rows: Tensor, uses: Sequence[Statistics]) -> Statistics:
    """One gram under which the relative output errors of all uses add up, (S, K, K).

    The rows of an embedding are read with other frequencies than the rows of a projection are computed; where both
    use a weight, reading counts for all rows alike.
    """
    grams = []
    for use in uses:
        if use.gram is not None and use.gram_before is not None:
            sets = rows.double().reshape(len(use.gram), -1, rows.shape[1])
            energy = float((sets @ use.gram_before * sets).sum()) or 1.0
            grams.append(shrunk(use.gram, noise_share(use.gram, use.independent)) / energy)
    counts = [use.row_counts for use in uses if use.row_counts is not None]
    if not grams:
        return Statistics(
            sum(use.count for use in uses), row_counts=torch.stack(counts).sum(0) if counts else None
        )
    for often in counts:
        energy = float((rows.double().square().sum(1) * often).sum()) or 1.0
        grams.append(often.mean() / energy * torch.eye(rows.shape[1], dtype=torch.float64)[None])
    most = math.lcm(*map(len, grams))
    gram = torch.stack([each.repeat_interleave(most // len(each), 0) for each in grams]).sum(0)
    return Statistics(sum(use.count for use in uses), gram=gram)
