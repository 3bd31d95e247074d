"""The constants of an operator, as buffers under the name of the weight."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn

from hashcompile.core.layers import attribute


def stored(graph: fx.GraphModule, parameter: str, values: Mapping[str, Tensor]) -> list[fx.Node]:
    """Constants of an operator under the name of the weight, as nodes."""
    holder = attribute(graph, parameter)
    return [
        graph.graph.get_attr(f"{parameter}.{store(holder, name, value)}") for name, value in values.items()
    ]


def store(holder: nn.Module, name: str, value: Tensor) -> str:
    """Register a constant, or find the equal one that another consumer of a tied weight already holds."""
    for existing, tensor in holder.named_buffers(recurse=False):
        if existing.rstrip("_") == name and torch.equal(tensor, value):
            return existing
    while hasattr(holder, name):
        name += "_"
    holder.register_buffer(name, value)
    return name
