"""One array of values for several layers, fitted or drawn with all of them in view.

With W_l (N_l, K_l) the weights of layer l, g_l their root mean square and A_l v what the layer's own hash makes of v,

    sum_l |W_l - g_l A_l v|^2

is least where each value is the mean of the weights of its bucket over g_l, each counted g_l^2 times.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hashcompile.core.graph import CompressedGraph
from hashcompile.core.layers import Layer, attribute
from hashcompile.core.method import Pool, Survey
from hashcompile.core.signature import Batch
from hashcompile.passes.hashed.config import Hashed
from hashcompile.passes.hashed.fit import sample_values, size_of
from hashcompile.passes.hashed.hash import layer_seed
from hashcompile.passes.hashed.weight import places


def survey(
    config: Hashed, layers: Sequence[Layer], graph: CompressedGraph, example: Batch, batches: Sequence[Batch]
) -> Survey:
    """The pool of the layers, where they share one."""
    if config.pool is None:
        return Survey()
    weights = sum(layer.view.numel for layer in layers)
    count = config.count(weights)
    parts = [part(graph, config, layer, count) for layer in layers]
    if config.start == "sample":
        whole, index = (torch.cat(pieces)[None] for pieces in list(zip(*parts, strict=True))[:2])
        values = sample_values(whole, index, count, config.seed)
    else:
        values = means(parts, count)
    pool = Pool(nn.Parameter(values), weights)
    return Survey(pools={layer.parameter: pool for layer in layers})


def part(graph: CompressedGraph, config: Hashed, layer: Layer, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """(W / g, the place of each of them, g) of one layer, flat."""
    rows = layer.view.rows(attribute(graph, layer.parameter).detach())
    seed = layer_seed(config.seed, layer.parameter)
    size = size_of(rows)
    return (rows / size).flatten(), places(*layer.view.size, count, seed, config.tile).flatten(), size


def means(parts: Sequence[tuple[Tensor, Tensor, Tensor]], count: int) -> Tensor:
    """(count,) float32; 0 for a bucket without weights."""
    total, counted = (torch.zeros(2 * count, dtype=torch.float64) for _ in range(2))
    for unit, index, size in parts:
        energy = size.double().square()
        total.index_add_(0, index, unit.double() * energy)
        counted.index_add_(0, index, energy.expand(len(index)))
    signed, often = total[:count] - total[count:], counted[:count] + counted[count:]
    return torch.where(often > 0, signed / often, 0.0).float()
