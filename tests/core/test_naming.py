"""What is told of a node: words that the user can find."""

from __future__ import annotations

import operator
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from hashcompile.capture import capture
from hashcompile.core.naming import named, source_line


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc(x)  # of the block


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), nn.LayerNorm(4), Block())

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x).softmax(-1)  # of the net


def test_an_operator_its_module_and_its_line() -> None:
    lines = Path(__file__).read_text().splitlines()
    block, net = (
        next(i for i, line in enumerate(lines, 1) if f"# of the {what}" in line) for what in ("block", "net")
    )
    first = capture(Net(), (torch.randn(2, 4),)).graph
    for graph in (first, capture(first, (torch.randn(2, 4),)).graph):
        told = [named(node) for node in graph.graph.nodes if node.op == "call_function"]
        assert told == [
            f"linear in blocks.0.fc (test_naming.py:{block})",
            f"add in blocks.0 (test_naming.py:{block})",
            f"layer_norm in blocks.1 (test_naming.py:{net})",
            f"linear in blocks.2.fc (test_naming.py:{block})",
            f"add in blocks.2 (test_naming.py:{block})",
            f"softmax (test_naming.py:{net})",
        ]
        last = list(graph.graph.nodes)[-2]
        assert source_line(last) == f"{__file__}:{net}: {lines[net - 1].strip()}"


def test_without_a_trace_there_is_still_an_operator() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    y = graph.call_function(torch.ops.aten.relu_.default, (x,))
    z = graph.call_function(operator.mul, (y, 2))
    assert [named(node) for node in (x, y, z)] == ["x", "relu", "mul"]
    assert source_line(y) == ""
