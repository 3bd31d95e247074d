"""Two layers with an activation between them -> one operator: which are taken, and that it means what they did."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import hashcompile as hc
from hashcompile.inspector import inspect
from tests.lower.test_epilogue import ACTIVATIONS
from tests.oracle import our_nodes

batch = torch.export.Dim("batch")


class Block(nn.Module):
    def __init__(self, act=functional.gelu, after=None, bias: tuple[bool, bool] = (True, True)):
        super().__init__()
        self.up, self.down = nn.Linear(24, 40, bias[0]), nn.Linear(40, 24, bias[1])
        self.act, self.after = act, after or (lambda y, x, h: y)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.up(x))
        return self.after(self.down(h), x, h)


def exported(model: nn.Module, folder: Path, compute: str = "int8", method=None):
    """Compiled and exported, which verifies both runtimes."""
    torch.manual_seed(0)
    x = torch.randn(6, 5, 24)
    compiled = hc.compile(
        model.eval(), (x,), method or hc.Codebook(4), [(x,)], dynamic_shapes=({0: batch},), compute=compute
    )
    compiled.export_onnx(folder / "m.onnx")
    return compiled, [node.op_type for node in onnx.load(str(folder / "m.onnx")).graph.node]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation(name, tmp_path):
    _, operators = exported(Block(ACTIVATIONS[name]), tmp_path)
    assert operators == ["FeedForward"]
    up, down = our_nodes(tmp_path / "m.onnx")
    assert (up.attributes["activation"], "activation" in down.attributes) == (name.encode(), True)


@pytest.mark.parametrize("bias", [(True, False), (False, True), (False, False)], ids=str)
@pytest.mark.parametrize("after", [None, lambda y, x, h: x + y, lambda y, x, h: functional.relu(x + y)])
def test_biases_residuals_and_what_follows(after, bias, tmp_path):
    _, operators = exported(Block(after=after, bias=bias), tmp_path)
    assert operators == ["FeedForward"]


def test_the_layers_have_codes_of_their_own(tmp_path):
    method = {"up": hc.Codebook(bits=3), "down": hc.Codebook(bits=5, granularity="per_group", group_size=16)}
    compiled, operators = exported(Block(), tmp_path, method=method)
    assert operators == ["FeedForward"]
    up, down = inspect(tmp_path / "m.onnx").layers
    assert [(layer.name, layer.op, layer.bits, layer.shape, layer.compute) for layer in (up, down)] == [
        ("up", "FeedForward", 3, (40, 24), "int8"),
        ("down", "FeedForward", 5, (24, 40), "int8"),
    ]
    kernels = [compiled.report()[name].kernel for name in ("up", "down")]
    assert kernels == ["FeedForward u3_bias int8", "FeedForward u5_grouped_bias int8"]
    for layer, node in zip((up, down), our_nodes(tmp_path / "m.onnx"), strict=True):
        assert layer.bytes == sum(part.nbytes for part in node.constants.values()) + 4 * layer.shape[0]


@pytest.mark.parametrize(
    "model",
    [
        Block(act=lambda x: x),
        Block(after=lambda y, x, h: y + h.sum()),  # the hidden values have another reader
        Block(act=lambda x: x.softmax(-1)),
        nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.LayerNorm(24), nn.Linear(24, 24)),
    ],
)
def test_what_stays_two_layers(model, tmp_path):
    _, operators = exported(model, tmp_path)
    assert operators.count("CodebookLinear") == 2 and "FeedForward" not in operators


@pytest.mark.parametrize("compute", ["float", "bf16"])
def test_other_arithmetic_stays_two_layers(compute, tmp_path):
    _, operators = exported(Block(), tmp_path, compute)
    assert operators == ["CodebookLinear"] * 2


def test_three_layers_are_a_pair_and_one(tmp_path):
    model = nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 32), nn.ReLU(), nn.Linear(32, 8))
    _, operators = exported(model, tmp_path)
    assert operators == ["FeedForward", "CodebookLinear"]


def test_a_weight_that_both_read(tmp_path):
    model = Block()
    model.up = model.down = nn.Linear(24, 24)
    _, operators = exported(model, tmp_path)
    assert operators == ["FeedForward"]
    up, down = inspect(tmp_path / "m.onnx").layers
    assert up.bytes and not down.bytes
