"""The few ways to change a graph: training flags, replaced weights, dead code, and the check that refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hashcompile.capture import capture
from hashcompile.core.encoded import EncodedWeight, encoded_weights
from hashcompile.core.errors import GraphError
from hashcompile.core.graph import CompressedGraph, check, remove_dead, rename, replace_weight
from hashcompile.core.rows import RowView
from hashcompile.passes.codebook import CodebookWeight


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 4)
        self.unused = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.norm(self.conv(x)).mean((2, 3))))


X = torch.randn(16, 3, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def graph(net: Net) -> CompressedGraph:
    return capture(net, (X,)).graph


def code_of(weight: Tensor) -> CodebookWeight:
    """A code that returns exactly +-1 * |row mean| weights of this shape."""
    rows = weight.detach().reshape(len(weight), -1)
    return CodebookWeight(
        RowView(tuple(weight.shape)),
        1,
        0,
        (rows > 0).to(torch.uint8),
        torch.tensor([[-1.0, 1.0]]),
        rows.abs().mean(1),
    )


def test_eval_is_the_original(net: Net, graph: CompressedGraph) -> None:
    assert not graph.training
    torch.testing.assert_close(graph(X), net.eval()(X), rtol=0, atol=0)


def test_train_and_eval_flip_batch_norm_and_dropout(net: Net, graph: CompressedGraph) -> None:
    net.train()
    assert graph.train() is graph and graph.training
    torch.manual_seed(1)
    wanted = net(X)
    torch.manual_seed(1)
    torch.testing.assert_close(graph(X), wanted, rtol=0, atol=0)
    torch.testing.assert_close(graph.norm.running_mean, net.norm.running_mean, rtol=0, atol=0)
    net.eval(), graph.eval()
    assert torch.equal(graph(X), graph(X))
    torch.testing.assert_close(graph(X), net(X), rtol=0, atol=0)


class Instance(nn.Module):
    def __init__(self, track: bool) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm1d(4, track_running_stats=track)
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.fc(x))


@pytest.mark.parametrize("track", [False, True])
def test_instance_norm(track: bool) -> None:
    """Without running statistics it normalises by its input in both modes; with them, in training only."""
    model, x = Instance(track), torch.randn(3, 4, 8)
    graph = capture(model.eval(), (x,)).graph
    for mode in (True, False):
        torch.testing.assert_close(graph.train(mode)(x), model.train(mode)(x), rtol=0, atol=0)


def test_batch_norm_without_running_statistics() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8, track_running_stats=False)).eval()
    x = torch.randn(6, 8)
    torch.testing.assert_close(capture(model, (x,)).graph(x), model(x), rtol=0, atol=0)


def test_replace_weight(graph: CompressedGraph) -> None:
    code = code_of(graph.fc.weight)
    consumer = next(n for n in graph.graph.nodes if n.target is torch.ops.aten.linear.default)
    before = (consumer.target, consumer.args[0], consumer.args[2])
    replace_weight(graph, "fc.weight", code)
    graph.recompile()
    check(graph)
    weight = consumer.args[1]
    assert (weight.op, weight.target) == ("call_module", "fc.weight")
    assert (consumer.target, consumer.args[0], consumer.args[2]) == before, "the consumer does not change"
    assert encoded_weights(graph) == {"fc.weight": code}
    assert "fc.weight" not in dict(graph.named_parameters())
    pooled = functional.batch_norm(
        functional.conv2d(X, graph.conv.weight, graph.conv.bias),
        graph.norm.running_mean,
        graph.norm.running_var,
        graph.norm.weight,
        graph.norm.bias,
    ).mean((2, 3))
    torch.testing.assert_close(graph(X), functional.linear(pooled, code(), graph.fc.bias), rtol=0, atol=0)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.fc(x).relu())


def test_replace_weight_serves_all_readers() -> None:
    x = torch.randn(2, 8)
    graph = capture(Twice(), (x,)).graph
    code = code_of(graph.fc.weight)
    replace_weight(graph, "fc.weight", code)
    graph.recompile()
    check(graph)
    wanted = functional.linear(functional.linear(x, code(), graph.fc.bias).relu(), code(), graph.fc.bias)
    torch.testing.assert_close(graph(x), wanted, rtol=0, atol=0)
    assert not any(node.op == "get_attr" and node.target == "fc.weight" for node in graph.graph.nodes)


def test_remove_dead(graph: CompressedGraph) -> None:
    wanted = graph(X)
    assert not any(name.startswith("unused") for name, _ in graph.named_parameters()), "capture removes it"
    assert not remove_dead(graph)
    graph.register_parameter("extra", nn.Parameter(torch.ones(3)))
    output = next(node for node in graph.graph.nodes if node.op == "output")
    with graph.graph.inserting_before(output):
        extra: Any = graph.graph.get_attr("extra")
        graph.graph.call_function(torch.ops.aten.relu.default, (extra,))
    assert remove_dead(graph)
    assert not any(node.target is torch.ops.aten.relu.default for node in graph.graph.nodes)
    assert "extra" not in dict(graph.named_parameters())
    assert torch.equal(graph(X), wanted)


class Writes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        y[:, 0] = 0.0  # nobody reads what the write returns
        return y


def test_remove_dead_keeps_writes() -> None:
    model, x = Writes().eval(), torch.randn(2, 8)
    graph = capture(model, (x,)).graph
    remove_dead(graph)
    torch.testing.assert_close(graph(x), model(x), rtol=0, atol=0)


def test_check_refuses_a_module_that_is_no_code(graph: CompressedGraph) -> None:
    graph.add_submodule("stranger", nn.ReLU())
    first = next(node for node in graph.graph.nodes if node.op == "call_function")
    with graph.graph.inserting_after(first):
        graph.graph.call_module("stranger", (first,))
    with pytest.raises(GraphError, match="stranger"):
        check(graph)


def test_check_refuses_a_method(graph: CompressedGraph) -> None:
    first = next(node for node in graph.graph.nodes if node.op == "call_function")
    with graph.graph.inserting_after(first):
        graph.graph.call_method("relu", (first,))
    with pytest.raises(GraphError, match="relu"):
        check(graph)


def test_check_refuses_a_broken_graph(graph: CompressedGraph) -> None:
    nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
    nodes[0].update_arg(0, nodes[-1])  # reads a node that comes later
    with pytest.raises(Exception, match=r"before it has been defined|topological"):
        check(graph)


def test_an_encoded_weight_counts_its_bytes() -> None:
    code = code_of(torch.randn(32, 64))
    assert isinstance(code, EncodedWeight)
    assert code.nbytes == 32 * 64 // 8 + 2 * 4 + 32 * 4
    assert code.bits_per_weight == pytest.approx(8 * code.nbytes / (32 * 64))


def test_nodes_get_the_names_that_are_asked_for(net: Net) -> None:
    """What computes something, that is; whoever has such a name gets another one, and all runs as before."""
    graph = capture(net, (X,)).graph
    wanted, before = graph(X), [(node.op, node.target) for node in graph.graph.nodes]
    rename(graph, {"conv2d": "mean", "linear": "conv2d", "x": "y", "nobody": "linear"})
    names = [node.name for node in graph.graph.nodes if node.op == "call_function"]
    assert names[0] == "mean" and names[-1] == "conv2d" and "mean_" in names and len(set(names)) == len(names)
    assert [(node.op, node.target) for node in graph.graph.nodes] == before
    assert torch.equal(graph(X), wanted)
