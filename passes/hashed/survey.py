"""One array of values for several layers, fitted or drawn with all of them in view.

With W_l (N_l, K_l) the weights of layer l, g_l their root mean square over that of all layers, and A_l v what the
layer's own hash makes of v,

    sum_l |W_l - g_l A_l v|^2

is least where each value is the mean of the weights of its bucket over g_l, each counted g_l^2 times. So values are of
the size of weights, and train at their learning rate; the g_l stay what they are, for a change of one moves a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hashcompile.core.errors import ConfigError
from hashcompile.core.graph import CompressedGraph
from hashcompile.core.layers import Layer, attribute
from hashcompile.core.method import Pool, Survey
from hashcompile.core.signature import Batch
from hashcompile.passes.hashed.config import Hashed
from hashcompile.passes.hashed.fit import sample_values, size_of
from hashcompile.passes.hashed.hash import layer_seed
from hashcompile.passes.hashed.padding import others, zero_padding
from hashcompile.passes.hashed.weight import places


class Part(NamedTuple):
    """Of one layer, flat; without a row of padding that is zero."""

    unit: Tensor  # W / g
    place: Tensor  # of each of them, in (values, -values)
    gain: Tensor  # g


def survey(
    config: Hashed, layers: Sequence[Layer], graph: CompressedGraph, example: Batch, batches: Sequence[Batch]
) -> Survey:
    """The pool of the layers, where they share one. Raises ConfigError for one that is no smaller than they are."""
    if config.pool is None:
        return Survey()
    weights = [attribute(graph, layer.parameter).detach() for layer in layers]
    numbers = sum(map(torch.numel, weights))
    count, size = config.count(numbers), size_of(torch.cat([weight.flatten() for weight in weights]))
    if count >= numbers:
        raise ConfigError(
            f"{config}: a pool of {count} values for {numbers} weights of {', '.join(each.name for each in layers)} is "
            "no gain: wanted a smaller ratio, more layers, or no pool"
        )
    parts = [part(config, *each, count, size) for each in zip(layers, weights, strict=True)]
    if config.start == "sample":
        whole = torch.cat([part.unit for part in parts])[None]
        values = sample_values(whole, torch.cat([part.place for part in parts])[None], count, config.seed)
    else:
        values = means(parts, count)
    pool = Pool(nn.Parameter(values), numbers, float(size))
    return Survey(pools={layer.parameter: pool for layer in layers})


def part(config: Hashed, layer: Layer, weight: Tensor, count: int, size: Tensor) -> Part:
    """`count` values in the pool; `size` is the root mean square of all weights."""
    rows = layer.view.rows(weight)
    index = places(*layer.view.size, count, layer_seed(config.seed, layer.parameter), config.tile)
    gain, hashed = size_of(rows) / size, others(len(rows), zero_padding(layer, rows))
    return Part((rows[hashed] / gain).flatten(), index[hashed].flatten(), gain)


def means(parts: Sequence[Part], count: int) -> Tensor:
    """(count,) float32; 0 for a bucket without weights."""
    total, counted = (torch.zeros(2 * count, dtype=torch.float64) for _ in range(2))
    for unit, index, gain in parts:
        energy = gain.double().square()
        total.index_add_(0, index, unit.double() * energy)
        counted.index_add_(0, index, energy.expand(len(index)))
    signed, often = total[:count] - total[count:], counted[:count] + counted[count:]
    return torch.where(often > 0, signed / often, 0.0).float()
