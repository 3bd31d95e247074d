"""Weight -> CodebookWeight, or the reason why a layer is better left alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hashcompile.core.encoded import EncodedWeight
from hashcompile.core.layers import Layer
from hashcompile.core.method import Compute, Statistics
from hashcompile.core.packing import PAIR, layout
from hashcompile.passes.codebook.config import Codebook, Int8
from hashcompile.passes.codebook.fit import fit_codebook
from hashcompile.passes.codebook.learning import LearningCodebook
from hashcompile.passes.codebook.weight import CodebookWeight


def refuse(layer: Layer, config: Codebook | Int8) -> str | None:
    """A layer too small to gain: its padded codes, tables and scales take as much as the dense weight."""
    rows, columns = layer.view.size
    codes = math.prod(layout(config.bits).shape(rows, columns))
    encoded = codes + 4 * config.tables(rows) * 2**config.bits + 4 * rows
    dense = 4 * layer.view.numel
    if encoded >= dense:
        padded = f"; codes come in {PAIR} rows, and it has {rows}" if rows < PAIR else ""
        return f"too small to gain: {encoded} bytes encoded, {dense} bytes dense{padded}"
    return None


def encode(
    weight: Tensor, layer: Layer, config: Codebook | Int8, statistics: Statistics, compute: Compute
) -> CodebookWeight | LearningCodebook:
    """Fit the code to `weight` under the statistics of its inputs. A code that learns begins there."""
    rows = layer.view.rows(weight.detach()).contiguous()
    fit = fit_codebook(
        rows,
        config.bits,
        group_rows=config.group_rows,
        gram=statistics.gram,
        # a row that calibration never read still has to be right when it is
        row_weights=statistics.row_counts + 1 if statistics.row_counts is not None else None,
        int8_grid=compute == "int8" or isinstance(config, Int8),
    )
    # tables of largest magnitude 1, scales of the weights' size: both train at the usual learning rates
    unit = fit.codebook.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    code = CodebookWeight(
        layer.view, config.bits, config.group_rows, fit.indices, fit.codebook / unit, fit.scale * unit
    )
    if isinstance(config, Codebook) and config.learn:
        return LearningCodebook(code, weight, grid=compute == "int8")
    return code


def recall(code: EncodedWeight, config: Codebook | Int8) -> EncodedWeight | None:
    """The learnt code of a weight, as it will be stored; to be learnt on, as it is."""
    if not isinstance(config, Codebook) or not isinstance(code, (CodebookWeight, LearningCodebook)):
        return None
    if (code.bits, code.group_rows) != (config.bits, config.group_rows):
        return None
    return code if config.learn else code.stored()
