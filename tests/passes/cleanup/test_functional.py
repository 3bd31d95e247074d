"""op_(x) -> op(x): where nobody sees the difference, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hashcompile.capture import capture
from hashcompile.passes.cleanup.functional import functional

relu_ = torch.relu_


class Around(nn.Module):
    """A convolution, and what is done with its output."""

    def __init__(self, then: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.conv(x), x)


def chained(y: Tensor, x: Tensor) -> Tensor:
    return relu_(relu_(y).add_(x).mul_(2))


def read_before(y: Tensor, x: Tensor) -> Tensor:
    z = y.sigmoid()
    return relu_(y) + z


def read_after(y: Tensor, x: Tensor) -> Tensor:
    relu_(y)
    return y + 1


def through_a_view(y: Tensor, x: Tensor) -> Tensor:
    view = y.flatten(1)
    return relu_(y).flatten(1) + view


def of_a_view(y: Tensor, x: Tensor) -> Tensor:
    relu_(y.flatten(1))
    return y


def idle(y: Tensor, x: Tensor) -> Tensor:
    return nn.functional.dropout(y.flatten(1), training=False, inplace=True)


def of_an_input(y: Tensor, x: Tensor) -> Tensor:
    return relu_(x) + y


@pytest.mark.parametrize(
    ("then", "left"),
    [
        (chained, 0),
        (read_before, 0),
        (read_after, 0),
        (through_a_view, 1),
        (of_a_view, 1),
        (idle, 0),
        (of_an_input, 1),
    ],
)
def test_functional(then: Callable[[Tensor, Tensor], Tensor], left: int) -> None:
    graph = capture(Around(then), (torch.randn(2, 4, 3, 3),)).graph
    x = torch.randn(5, 4, 3, 3)
    wanted = graph(x.clone())
    before = in_place(graph)
    assert functional(graph) == (before > left)
    assert in_place(graph) == left
    assert torch.equal(graph(x.clone()), wanted)
    assert not functional(graph), "there is nothing more to do"


def in_place(graph: torch.fx.GraphModule) -> int:
    schemas = [getattr(node.target, "_schema", None) for node in graph.graph.nodes]
    return sum(schema is not None and schema.is_mutable for schema in schemas)
