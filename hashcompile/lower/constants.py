"""The constants of an operator, as buffers under the name of the weight."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn

from hashcompile.core.layers import attribute, unused


def stored(graph: fx.GraphModule, parameter: str, values: Mapping[str, Tensor]) -> list[fx.Node]:
    """Constants of an operator under the name of the weight, as nodes; what another weight has stored, a pool of values
    that both read, under the name of that one."""
    holder = attribute(graph, parameter)
    return [
        graph.graph.get_attr(held_in(graph, value) or f"{parameter}.{store(holder, name, value)}")
        for name, value in values.items()
    ]


def held_in(graph: fx.GraphModule, value: Tensor) -> str | None:
    """The path of a buffer that is the same memory."""
    for path, tensor in graph.named_buffers():
        if value.numel() and tensor.data_ptr() == value.data_ptr() and tensor.shape == value.shape:
            return path
    return None


def store(holder: nn.Module, name: str, value: Tensor) -> str:
    """Register a constant, or find the equal one that another consumer of a tied weight already holds."""
    for existing, tensor in holder.named_buffers(recurse=False):
        if existing.rstrip("_") == name and torch.equal(tensor, value):
            return existing
    name = unused(holder, name)
    holder.register_buffer(name, value)
    return name
