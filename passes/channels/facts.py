"""What one real run of a graph says that its operators alone do not: every shape, and every value of whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

LARGEST = 1 << 24  # elements of an integer tensor that is remembered; an index into channels is far smaller


class Facts(fx.Interpreter):
    """`shapes[node]`: the shape of a tensor, or a list of shapes, None for what is no tensor.

    `values[node]`: of everything that is not a float tensor: sizes, indices, masks.
    """

    def __init__(self, graph: fx.GraphModule, example: Sequence[Any]) -> None:
        super().__init__(graph)
        self.shapes: dict[fx.Node, Any] = {}
        self.values: dict[fx.Node, Any] = {}
        with torch.no_grad():
            given = (value.clone() if isinstance(value, Tensor) else value for value in example)
            self.run(*given, enable_io_processing=False)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.shapes[n] = shapes_of(value)
        if not isinstance(value, Tensor):
            self.values[n] = value
        elif not value.is_floating_point() and value.numel() < LARGEST:
            self.values[n] = value.clone()
        return value

    def value(self, argument: Any) -> Any:
        """An argument of a node, with the sizes and indices in it as they were; None for what is not known."""
        return fx.map_arg(argument, self.values.get)


def shapes_of(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, (tuple, list)):
        return [shapes_of(each) for each in value]
    return None
