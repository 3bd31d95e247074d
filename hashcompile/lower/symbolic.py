"""A node of ours in a graph that is about to be exported."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
