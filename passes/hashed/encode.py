"""Weight -> HashedWeight, or the reason why a layer is better left alone."""

from __future__ import annotations

import torch
from torch import Tensor

from hashcompile.core.layers import Layer
from hashcompile.core.method import Compute, Statistics
from hashcompile.passes.hashed.config import Hashed
from hashcompile.passes.hashed.fit import best_gain, fit_values, sample_values, size_of
from hashcompile.passes.hashed.hash import layer_seed
from hashcompile.passes.hashed.padding import others, zero_padding
from hashcompile.passes.hashed.weight import HashedWeight


def refuse(layer: Layer, config: Hashed) -> str | None:
    """A layer that has no more weights than values, such as one smaller than a tile; a pool is asked as a whole."""
    if config.pool is not None:
        return None
    encoded, dense = 4 * config.count(layer.view.numel), 4 * layer.view.numel
    return f"too small to gain: {encoded} bytes encoded, {dense} bytes dense" if encoded >= dense else None


def encode(
    weight: Tensor, layer: Layer, config: Hashed, statistics: Statistics, compute: Compute
) -> HashedWeight:
    """Fit the values to `weight` under the statistics of its inputs, or draw them from it."""
    rows, count = layer.view.rows(weight.detach()), config.count(layer.view.numel)
    seed, padding = layer_seed(config.seed, layer.parameter), zero_padding(layer, rows)
    if statistics.pool is not None:
        pool = statistics.pool
        gain = size_of(rows)[None] / pool.size
        code = HashedWeight(layer.view, pool.values, seed, config.tile, gain, pool.weights, padding)
        if config.start == "fit":
            assert code.scale is not None
            code.scale.data *= best_gain(rows, code.rows().detach(), statistics.gram)
        return code
    code = HashedWeight(layer.view, torch.zeros(count), seed, config.tile, padding=padding)
    hashed = others(len(rows), padding)
    rows, index = rows[hashed], code.index[hashed]
    if config.start == "sample":
        values = sample_values(rows, index, count, seed)
    else:
        counts = statistics.row_counts  # a row that calibration never read still has to be right when it is
        values = fit_values(
            rows,
            index,
            count,
            gram=statistics.gram,
            importance=None if counts is None else counts[hashed] + 1,
        )
    code.values.data.copy_(values)
    return code
