"""What an index is made from: some inputs of the layer, one by one, and its bias."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from hashcompile.core.errors import ConfigError
from hashcompile.core.graph import CompressedGraph, flat_copy
from hashcompile.core.layers import Layer, arguments, attribute
from hashcompile.core.method import Seen, Survey
from hashcompile.core.signature import Batch
from hashcompile.core.sweep import walk
from hashcompile.passes.wide.config import Wide

MOST = 4096  # inputs that are looked at
LINEAR = torch.ops.aten.linear.default


def survey(
    config: Wide, layers: Sequence[Layer], graph: CompressedGraph, example: Batch, batches: Sequence[Batch]
) -> Survey:
    """Raises ConfigError without calibration data."""
    if not batches:
        raise ConfigError(
            f"{config}: recall is measured on calibration data: give compile(..., calibration=...)"
        )
    flat = flat_copy(graph)
    wanted = {name: layer.parameter for layer in layers for name in layer.consumers}
    seen: dict[str, Seen] = {}
    for node, inputs in walk(flat, batches, {LINEAR}):
        if node.name in wanted and wanted[node.name] not in seen:
            seen[wanted[node.name]] = Seen(some(inputs), bias_of(flat, node))
    return Survey(seen=seen, untouched=True)


def some(inputs: Sequence[Tensor]) -> Tensor:
    """(M, K) of activations (..., K), drawn at random where there are more than `MOST`."""
    rows = torch.cat([x.reshape(-1, x.shape[-1]) for x in inputs])
    drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:MOST]
    return rows[drawn]


def bias_of(graph: fx.GraphModule, layer: fx.Node) -> Tensor | None:
    """Of a linear layer; None too for one that is computed, which no kernel reads."""
    bias = arguments(layer)["bias"]
    if not isinstance(bias, fx.Node) or bias.op != "get_attr":
        return None
    found: Tensor = attribute(graph, str(bias.target)).detach()
    return found
