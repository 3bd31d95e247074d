"""A node of ours in a graph that is about to be exported."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from hashcompile.core.layers import unused
from hashcompile.core.onnx_op import DOMAIN, VERSION, OnnxOp


class SymbolicOp(nn.Module):
    """A node of ours to the exporter: named, typed and shaped, never executed."""

    def __init__(self, op: OnnxOp, dtype: torch.dtype) -> None:
        super().__init__()
        self.op = op
        self.dtype = dtype

    def forward(self, *inputs: Tensor | None) -> Tensor:
        return torch.onnx.ops.symbolic(
            f"{DOMAIN}::{self.op.operator}",
            inputs,
            self.op.exported(),
            dtype=self.dtype,
            shape=self.op.out_shape(*inputs[: self.op.activations]),
            version=VERSION,
        )


def call_op(
    graph: fx.GraphModule, name: str, module: nn.Module, inputs: Sequence[fx.node.Argument]
) -> fx.Node:
    """A call of `module`, which hangs in the graph under that name, or one like it where the user's model has it."""
    name = unused(graph, name)
    graph.add_submodule(name, module)
    return graph.graph.call_module(name, tuple(inputs))
