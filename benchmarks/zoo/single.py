"""Models of one layer: what a kernel costs, with nothing around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from hashcompile.core import packing
from hashcompile.core.onnx_op import DOMAIN


def linear(N: int, K: int) -> nn.Linear:
    """`y (M, N) = input (M, K) W'`, no bias: nobody's fused epilogue counts."""
    torch.manual_seed(0)
    return nn.Linear(K, N, bias=False).eval()


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Padded so that stride 1 keeps the size."""
    torch.manual_seed(0)
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False).eval()


def write_codebook_linear(path: Path, N: int, K: int, bits: int = 4) -> None:
    """The file that `linear` compiles to, with random codes: no time depends on them, and fitting takes a minute."""
    rng = np.random.default_rng(0)
    tensors = {
        "weight.codes": packing.pack(rng.integers(0, 1 << bits, (N, K), np.uint8), bits),
        "weight.codebook": rng.normal(size=(1, 1 << bits)).astype(np.float32),
        "weight.scale": np.ones(N, np.float32),
    }
    attributes = {"bits": bits, "in_features": K, "group_rows": 0, "compute": 1}
    graph = helper.make_graph(
        [helper.make_node("CodebookLinear", ["input", *tensors], ["output"], domain=DOMAIN, **attributes)],
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["M", K])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["M", N])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    _save(path, graph)


def write_empty(path: Path) -> None:
    """Tells the shape of its input: what calling the runtime costs."""
    graph = helper.make_graph(
        [helper.make_node("Shape", ["input"], ["output"])],
        "empty",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["M", "K"])],
        [helper.make_tensor_value_info("output", TensorProto.INT64, [2])],
    )
    _save(path, graph)


def _save(path: Path, graph: onnx.GraphProto) -> None:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
