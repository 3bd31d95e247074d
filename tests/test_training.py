"""The compressed graph is an ordinary module: it trains, changes its mode, and is exported again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
from hashcompile.core.encoded import encoded_weights
from hashcompile.core.method import Compute
from tests.models import COMPUTES, build, generator
from tests.oracle import relative, rounding, run, stock


@pytest.mark.parametrize("compute", COMPUTES)
def test_fine_tuning(compute: Compute, tmp_path: Path) -> None:
    model, inputs = build("cnn")
    compiled = hc.compile(model, inputs(4), hc.Codebook(2), [inputs(64)], compute=compute)
    graph = compiled.graph_module
    x = inputs(64)[0]
    with torch.no_grad():
        wanted = model(x)

    def loss() -> Tensor:
        return nn.functional.mse_loss(graph(x), wanted)

    codes: dict[str, Any] = encoded_weights(graph)
    assert len(codes) == 3
    trained = {name: p for name, p in graph.named_parameters() if p.requires_grad}
    assert {f"{name}.{part}" for name in codes for part in ("codebook", "scale")} <= set(trained)
    indices = {name: code.indices.clone() for name, code in codes.items()}
    losses = [float(loss())]
    loss().backward()
    for name, code in codes.items():
        assert bool(code.codebook.grad.abs().sum() > 0), name
        assert bool(code.scale.grad.abs().sum() > 0), name
    start = {name: p.detach().clone() for name, p in trained.items()}
    rate = losses[0] / sum(float(p.grad.square().sum()) for p in trained.values() if p.grad is not None)
    for _ in range(40):  # the gradient is right if a step along it helps once it is short enough
        rate /= 2
        graph.load_state_dict(start, strict=False)
        optimizer = torch.optim.SGD(trained.values(), lr=rate)
        for _ in range(3):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
            losses.append(float(loss()))
        if losses[-3] < losses[0] and losses[-3:] == sorted(losses[-3:], reverse=True):
            break
    assert losses[-1] < losses[-2] < losses[-3] < losses[0]
    assert all(torch.equal(code.indices, indices[name]) for name, code in codes.items())
    checks = compiled.export_onnx(tmp_path / "m.onnx")
    assert all(check.error <= check.tolerance for check in checks)
    with torch.no_grad():
        assert relative(run(stock(tmp_path / "m.onnx"), (x,)), compiled(x)) <= 2 * rounding(compiled)


@pytest.mark.parametrize("compute", COMPUTES)
def test_the_usual_optimizer_does_not_wreck_the_codes(compute: Compute) -> None:
    """Adam's first step moves every parameter by its rate, 1e-3 by default; weights here are about 0.1."""
    model, inputs = build("mlp")
    graph = hc.compile(model, inputs(4), hc.Codebook(2), [inputs(64)], compute=compute).graph_module
    x = inputs(64)[0]
    wanted = model(x).detach()
    optimizer = torch.optim.Adam(graph.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(graph(x), wanted)
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]


def test_training_mode() -> None:
    model, inputs = build("cnn")
    graph = hc.compile(model, inputs(4)).graph_module
    x = inputs(8)[0]
    still = graph(x)
    mean = graph.norm1.running_mean.clone()
    assert torch.equal(graph(x), still) and torch.equal(graph.norm1.running_mean, mean)
    assert not torch.equal(graph.train()(x), still)
    assert not torch.equal(graph.norm1.running_mean, mean)
    graph.eval()
    assert torch.equal(graph(x), graph(x))


def test_export_in_training_mode(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(50, 70), nn.BatchNorm1d(70), nn.Dropout(), nn.Linear(70, 33))
    compiled = hc.compile(model, (torch.randn(4, 50),))
    compiled.graph_module.train()
    state = {name: tensor.clone() for name, tensor in compiled.graph_module.state_dict().items()}
    try:
        compiled.export_onnx(tmp_path / "m.onnx")
    finally:
        changed = [n for n, t in compiled.graph_module.state_dict().items() if not torch.equal(t, state[n])]
        assert not changed, "an export changes nothing"
    assert compiled.graph_module.training


@pytest.mark.parametrize(
    "method",
    [
        hc.Codebook(4),
        hc.Codebook(4, learn=True),
        hc.Hashed(),
        hc.Hashed(tile=True),
        hc.LowRank(rank=4),
        hc.Sparse(0.5),
        *(hc.Sparse(0.5, importance=importance) for importance in ("snip", "grasp", "synflow")),
        hc.PruneChannels(0.3, importance="taylor"),
    ],
    ids=str,
)
def test_an_embedding_with_sparse_gradients(method: Any, tmp_path: Path) -> None:
    """What its weight is computed from takes no sparse gradients, nor do importances that look at them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(500, 32, sparse=True), nn.Flatten(), nn.Linear(7 * 32, 40))
    ids = torch.randint(0, 500, (16, 7))
    compiled = hc.compile(model.eval(), (ids,), method, [(ids,)], compute="float", progress=False)
    assert "0.weight" in encoded_weights(compiled.graph_module) or compiled.plan.reshaping
    compiled.save(tmp_path / "m.hc")
    for graph in (compiled.graph_module, hc.load(tmp_path / "m.hc").graph_module):
        graph.train()
        optimizer = torch.optim.Adam(graph.parameters(), 1e-2)
        losses = []
        for _ in range(5):
            optimizer.zero_grad()
            loss = (graph(ids) - 1).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]
        table = [value for name, value in graph.named_parameters() if name.startswith("0.")]
        assert table and all(value.grad is not None for value in table if value.requires_grad)
    assert model[0].sparse


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_tables_that_training_took_off_the_int8_grid_are_exported(name: str, tmp_path: Path) -> None:
    """The kernels round tables to 8 bits: verification expects just that, whatever the tables are."""
    model, inputs = build(name)
    compiled = hc.compile(model, inputs(8), hc.Codebook(bits=4), compute="int8")
    for weight in encoded_weights(compiled.graph_module).values():
        with torch.no_grad():  # one entry far above the others: 8 bits hold little of those
            weight.codebook *= 1 + 0.3 * torch.rand(weight.codebook.shape, generator=generator(1))
            weight.codebook[:, 0] *= 30
    stock, ours = compiled.calibrate([inputs(8)]).export_onnx(tmp_path / "m.onnx")
    assert stock.error < 1e-5 and 1e-3 < ours.error <= ours.tolerance
