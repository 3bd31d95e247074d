"""Layers that share one pool of values: what is fitted, what trains, what is stored once, and what runs."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import hashcompile as hc
import hashcompile_runtime as hcrt
from hashcompile.core.encoded import encoded_weights
from hashcompile.core.storage import Storage
from hashcompile.inspector import inspect
from hashcompile.passes.hashed import HashedWeight
from hashcompile.passes.hashed import onnx as lowered
from tests.models import build
from tests.oracle import DOMAIN, relative, run, stock


def mlp() -> nn.Sequential:
    """Layers of different sizes, and weights of different magnitudes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(60, 90), nn.ReLU(), nn.Linear(90, 40), nn.ReLU(), nn.Linear(40, 10))
    model[2].weight.data *= 5
    return model


def compiled_of(model: nn.Module, config: hc.Hashed, data: Any = None) -> hc.CompiledModel:
    return hc.compile(model, (torch.randn(2, 60),), config, data, compute="float")


def codes_of(compiled: hc.CompiledModel) -> dict[str, Any]:
    return dict(encoded_weights(compiled.graph_module))


@pytest.mark.parametrize("pool", ["", 1, True])
def test_a_pool_has_a_name(pool: Any) -> None:
    with pytest.raises(hc.ConfigError, match='pool is a name, such as "all"'):
        hc.Hashed(pool=pool)


@pytest.mark.parametrize("tile", [False, True])
def test_one_parameter_for_all_and_a_hash_for_each(tile: bool) -> None:
    compiled = compiled_of(mlp(), hc.Hashed(1 / 4, tile=tile, pool="all"))
    codes = codes_of(compiled)
    (values,) = {id(code.values): code.values for code in codes.values()}.values()
    weights = 60 * 90 + 90 * 40 + 40 * 10
    wanted = weights // 4 if not tile else 256 * -(-weights // 4 // 256)
    assert len(values) == wanted
    assert len({code.seed for code in codes.values()}) == 3
    assert sum(p.numel() for p in compiled.graph_module.parameters()) == wanted + 3 + 140


def test_values_and_scales_are_least_squares() -> None:
    """Of sum |W - g A v|^2 in v, for g the root mean square of each layer over that of all; then of each g."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(60, 16), nn.ReLU(), nn.Linear(16, 12))
    model[2].weight.data *= 5
    compiled = compiled_of(model, hc.Hashed(1 / 4, pool="all"))
    codes = codes_of(compiled)
    assert len(codes) == 2
    count = len(next(iter(codes.values())).values)
    blocks, right = [], []
    every = torch.cat([model.get_parameter(name).detach().double().flatten() for name in codes])
    unit = every.square().mean().sqrt()
    for name, code in codes.items():
        weight = model.get_parameter(name).detach().double()
        size = weight.square().mean().sqrt()
        index = code.index.flatten().long()
        a = torch.zeros(len(index), count, dtype=torch.float64)
        a[torch.arange(len(index)), index % count] = torch.where(index < count, 1.0, -1.0).double()
        blocks.append(a * size / unit)
        right.append(weight.flatten())
    best = torch.linalg.lstsq(torch.cat(blocks), torch.cat(right)[:, None], driver="gelsd").solution[:, 0]
    first = next(iter(codes.values()))
    torch.testing.assert_close(first.values.detach().double(), best, rtol=1e-4, atol=1e-5)
    for name, code in codes.items():
        plain = code.rows().detach().double() / code.scale.detach().double()
        weight = model.get_parameter(name).detach().double()
        best_scale = (plain * weight).sum() / plain.square().sum()
        assert float(code.scale.detach()) == pytest.approx(float(best_scale), rel=1e-4)


def test_scales_follow_the_inputs() -> None:
    """A layer that reads few of its inputs is scaled for those."""
    model = mlp()
    x = torch.randn(400, 60) * (torch.arange(60) < 4)
    config = hc.Hashed(1 / 4, pool="all")
    free, fitted = compiled_of(model, config), compiled_of(model, config, [(x,)])
    with torch.no_grad():
        first = model[0](x) - model[0].bias
        lost = [relative(x @ codes_of(each)["0.weight"]().T, first) for each in (free, fitted)]
    assert lost[1] < lost[0]


def test_it_trains_at_the_rate_of_weights() -> None:
    """Weights of one layer five times as large, momentum, and a rate that suits a network without a pool."""
    compiled = compiled_of(mlp(), hc.Hashed(1 / 4, pool="all", start="sample"))
    graph = compiled.graph_module.train()
    optimizer = torch.optim.SGD((p for p in graph.parameters() if p.requires_grad), lr=0.02, momentum=0.9)
    labels = torch.arange(200) % 10
    x = torch.randn(10, 60, generator=torch.Generator().manual_seed(0))[labels] + 0.1 * torch.randn(200, 60)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(graph(x), labels).backward()
        optimizer.step()
    assert float((graph(x).argmax(1) == labels).float().mean()) > 0.95
    assert not any(code.scale.requires_grad for code in codes_of(compiled).values())


def test_gradients_of_all_layers_add_up() -> None:
    compiled = compiled_of(mlp(), hc.Hashed(1 / 4, pool="all", start="sample"))
    graph = compiled.graph_module.train()
    codes = codes_of(compiled)
    values = next(iter(codes.values())).values
    x = torch.randn(20, 60)
    graph(x).square().sum().backward()
    whole = values.grad.clone()
    parts = torch.zeros_like(whole)
    for code in codes.values():
        values.grad = None
        others = [other for other in codes.values() if other is not code]
        kept = [other.values for other in others]
        for other in others:
            other.values = nn.Parameter(values.detach(), requires_grad=False)
        graph(x).square().sum().backward()
        parts += values.grad
        for other, value in zip(others, kept, strict=True):
            other.values = value
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-4)


def test_a_sampled_start_keeps_the_scale_of_every_layer() -> None:
    model = mlp()
    for name, code in codes_of(compiled_of(model, hc.Hashed(1 / 8, pool="all", start="sample"))).items():
        weight = model.get_parameter(name).detach()
        assert float(code.rows().detach().std() / weight.std()) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("tile", [False, True])
def test_the_pool_is_stored_once(tile: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(60, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 400))
    compiled = compiled_of(model, hc.Hashed(1 / 8, tile=tile, pool="all"))
    values = 4 * len(next(iter(codes_of(compiled).values())).values)
    compiled.export_onnx(tmp_path / "m.onnx")
    compiled.save(tmp_path / "m.hc")
    proto = onnx.load(tmp_path / "m.onnx")
    large = [tensor for tensor in proto.graph.initializer if 4 * np.prod(tensor.dims) >= values]
    assert len(large) == 1
    with zipfile.ZipFile(tmp_path / "m.hc") as archive:
        assert archive.getinfo("tensors.safetensors").file_size < values + 4 * 1200 + 4 * 4 * 60 + 4000
    assert sum(line.nbytes for line in compiled.report()) == pytest.approx(values + 12, abs=3)
    for path in (tmp_path / "m.onnx", tmp_path / "m.hc"):
        found = inspect(path)
        assert [layer.name for layer in found.layers] == ["0", "2", "4"]
        assert found.compressed_bytes == pytest.approx(values, abs=4 * 1200 + 100)
    loaded = hc.load(tmp_path / "m.hc")
    assert len({id(code.values) for code in codes_of(loaded).values()}) == 1
    x = torch.randn(3, 60)
    with torch.no_grad():
        wanted = compiled(x)
        assert torch.equal(loaded(x), wanted)
    for session in (stock(tmp_path / "m.onnx"), hcrt.session(tmp_path / "m.onnx")):
        assert relative(run(session, (x,)), wanted) < 1e-5


def test_the_kernel_reads_the_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowered, "DENSE_BYTES", 0)
    compiled = compiled_of(mlp(), hc.Hashed(1 / 4, tile=True, pool="all"))
    for check in compiled.export_onnx(tmp_path / "m.onnx"):
        assert check.error <= check.tolerance
    ours = [node for node in onnx.load(tmp_path / "m.onnx").graph.node if node.domain == DOMAIN]
    assert [node.op_type for node in ours] == ["HashedLinear"] * 3
    assert [node.name for node in ours] == ["0", "2", "4"]
    assert len({node.input[2] for node in ours}) == 1, "one pool"
    assert len({node.input[1] for node in ours}) == 3, "a scale each"
    assert {line.kernel for line in compiled.report()} == {"HashedLinear tile_gain_pool_bias"}


@pytest.mark.parametrize("name", ["cnn", "embedding", "tied", "transposed", "grouped"])
def test_layers_of_every_kind(name: str, tmp_path: Path) -> None:
    """Convolutions have a batch norm folded into them: a scale a row, and still one pool."""
    model, inputs = build(name)
    compiled = hc.compile(model, inputs(2), hc.Hashed(0.4, pool="all"), [inputs(32)], compute="float")
    compiled.export_onnx(tmp_path / "m.onnx")
    x = inputs(3)
    with torch.no_grad():
        assert relative(run(hcrt.session(tmp_path / "m.onnx"), x), compiled(*x)) < 1e-4
    compiled.save(tmp_path / "m.hc")
    with torch.no_grad():
        assert torch.equal(hc.load(tmp_path / "m.hc")(*x), compiled(*x))


def test_two_pools_are_two() -> None:
    model = mlp()
    method = {
        "0": hc.Hashed(1 / 4, pool="a"),
        "2": hc.Hashed(1 / 4, pool="b"),
        "4": hc.Hashed(1 / 4, pool="b"),
    }
    codes = codes_of(hc.compile(model, (torch.randn(2, 60),), method, compute="float"))
    assert codes["2.weight"].values is codes["4.weight"].values is not codes["0.weight"].values
    assert len(codes["0.weight"].values) == 60 * 90 // 4


@pytest.mark.parametrize(
    ("description", "storage"),
    [
        ({"pooled": -1}, {}),
        ({"pooled": 3}, {}),
        ({"pooled": True}, {}),
        ({}, {"gain": None}),
        ({}, {"pool": None}),
        ({}, {"gain": torch.ones(2)}),
        ({}, {"gain": torch.ones(1).double()}),
    ],
)
def test_a_damaged_one_is_refused(description: dict[str, Any], storage: dict[str, Any]) -> None:
    code = codes_of(compiled_of(mlp(), hc.Hashed(1 / 4, pool="all")))["0.weight"]
    parts = {name: value for name, value in (code.storage() | storage).items() if value is not None}
    with pytest.raises(hc.ArtifactError):
        HashedWeight.restore(code.view, code.describe() | description, Storage(parts))


@pytest.mark.parametrize(
    "method",
    [
        {"0": hc.Hashed(1 / 8, pool="a"), "2": hc.Hashed(1 / 4, pool="a")},
        {"0": hc.Hashed(1 / 8, pool="a"), "2": hc.Hashed(1 / 8, pool="a", seed=1)},
        [{"0": hc.Hashed(1 / 8, pool="a")}, {"2": hc.Hashed(1 / 8, pool="a")}],
    ],
)
def test_one_name_is_one_pool(method: Any) -> None:
    with pytest.raises(hc.ConfigError, match=r"pool 'a' is one array of values"):
        hc.compile(mlp(), (torch.randn(2, 60),), method)


def test_a_pool_as_large_as_its_layers_is_refused() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    with pytest.raises(hc.ConfigError, match=r"a pool of 256 values for 128 weights of 0, 1"):
        hc.compile(model, (torch.randn(2, 8),), hc.Hashed(1 / 2, tile=True, pool="a"))
