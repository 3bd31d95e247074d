"""What follows a layer becomes part of its operator, and means the same in every runtime."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import hashcompile as hc
from tests.oracle import our_nodes

ACTIVATIONS = {
    "relu": functional.relu,
    "clip": lambda x: functional.hardtanh(x, -0.5, 0.75),
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "hard_swish": functional.hardswish,
}


class Layer(nn.Module):
    def __init__(self, kind: str, after, bias: bool = True) -> None:
        super().__init__()
        self.layer = (
            nn.Linear(24, 24, bias) if kind == "linear" else nn.Conv2d(24, 24, 3, padding=1, bias=bias)
        )
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.layer(x), x)


def compiled_nodes(model: nn.Module, shape: tuple[int, ...], compute: str, path: Path):
    """Compile, export (which verifies both runtimes), and return the nodes of ours and all operators."""
    import onnx

    torch.manual_seed(0)
    x = torch.randn(4, *shape)
    compiled = hc.compile(model.eval(), (x,), hc.Codebook(4), [(x,)], compute=compute)
    compiled.export_onnx(path / "m.onnx")
    graph = onnx.load(path / "m.onnx").graph
    return our_nodes(path / "m.onnx"), [node.op_type for node in graph.node]


@pytest.mark.parametrize("compute", ["float", "int8"])
@pytest.mark.parametrize(("kind", "shape"), [("linear", (5, 24)), ("conv", (24, 6, 7))])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_one_node(name, residual, kind, shape, compute, tmp_path):
    act = ACTIVATIONS[name]
    model = Layer(kind, (lambda y, x: act(y + x)) if residual else (lambda y, x: act(y)))
    ours, operators = compiled_nodes(model, shape, compute, tmp_path)
    assert len(operators) == 1, operators
    assert ours[0].attributes["activation"] in (name, name.encode())


@pytest.mark.parametrize("compute", ["float", "int8"])
@pytest.mark.parametrize(("kind", "shape"), [("linear", (5, 24)), ("conv", (24, 6, 7))])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("act", [lambda x: x, functional.relu])
def test_a_residual_with_and_without_a_bias(act, bias, kind, shape, compute, tmp_path):
    model = Layer(kind, lambda y, x: act(x + y), bias)
    _, operators = compiled_nodes(model, shape, compute, tmp_path)
    assert len(operators) == 1, operators


@pytest.mark.parametrize("act", [lambda x: x * x.sigmoid(), lambda x: x * functional.relu6(x + 3) / 6])
def test_activations_that_are_written_out(act, tmp_path):
    _, operators = compiled_nodes(Layer("linear", lambda y, x: act(y), False), (24,), "int8", tmp_path)
    assert len(operators) == 1, operators


@pytest.mark.parametrize(
    "after",
    [
        lambda y, x: functional.relu(y) + y,  # two readers
        lambda y, x: torch.add(y, x, alpha=2),
        lambda y, x: y + y,
        lambda y, x: y + x[:1],  # another shape
        lambda y, x: functional.relu(functional.relu(y) + x) * 2,
    ],
)
def test_what_does_not_fit_stays(after, tmp_path):
    _, operators = compiled_nodes(Layer("linear", after), (24,), "int8", tmp_path)
    assert len(operators) > 1
