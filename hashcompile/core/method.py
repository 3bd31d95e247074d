"""The record of a compression method: every field is required, so a forgotten lowering fails at import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, fx

from hashcompile.core.encoded import EncodedWeight
from hashcompile.core.layers import Kind, Layer
from hashcompile.core.onnx_op import OnnxOp

Compute = Literal["int8", "float"]


@dataclass(frozen=True)
class Statistics:
    """What calibration saw at the inputs of one layer, S input sets (groups of a convolution) at a time.

    count: samples (tokens, output pixels) behind the sums.
    gram: (S, K, K) float64, X'X over those samples; rows of the weight fall into S equal consecutive sets.
    mean: (S, K) float64, the mean of X.
    row_counts: (N,) float64, how often each row of an embedding was read; None for other layers.
    """

    count: int
    gram: Tensor | None
    mean: Tensor | None
    row_counts: Tensor | None = None


@dataclass(frozen=True)
class Method:
    """One room under `passes/`."""

    name: str
    config: type  # frozen dataclass that the user writes
    code: type[EncodedWeight]
    refuse: Callable[[Layer, Any], str | None]  # (layer, config) -> why this layer is better left alone
    encode: Callable[[Tensor, Layer, Any, Statistics | None, Compute], tuple[EncodedWeight, float]]
    # (weight, layer, config, statistics, compute) -> the code, and its relative output error
    onnx_fused: Callable[[Any, fx.Node, Kind, Compute], OnnxOp | None]
    # (code, consumer, its kind, compute) -> decode + consumer as one node; None where no kernel does both
    onnx_decode: Callable[[Any], OnnxOp]  # code -> the dense weight, for any other consumer
