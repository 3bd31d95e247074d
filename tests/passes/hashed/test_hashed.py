"""hc.Hashed through the compiler: configs, files, training, and the company of other methods."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
import hashcompile_runtime as hcrt
from benchmarks.zoo import mnist
from hashcompile.core.encoded import encoded_weights
from hashcompile.inspector import inspect
from tests.models import build
from tests.oracle import DOMAIN, relative, run, stock


def operators(path: Path) -> set[str]:
    """Those of ours in a file."""
    return {node.op_type for node in onnx.load(path).graph.node if node.domain == DOMAIN}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 0}, "from 1/4096 to less than 1"),
        ({"ratio": 1}, "from 1/4096 to less than 1"),
        ({"ratio": 8}, "such as 1/8"),
        ({"ratio": -0.5}, "ratio=-0.5"),
        ({"ratio": float("nan")}, "ratio=nan"),
        ({"ratio": 1e-4}, "ratio=0.0001"),
        ({"ratio": True}, "ratio=True"),
        ({"ratio": "1/8"}, "ratio='1/8'"),
        ({"tile": 16}, "a fixed size"),
        ({"tile": None}, "tile is True"),
        ({"start": "mean"}, '"fit" or "sample"'),
        ({"seed": 1.5}, "a whole number"),
        ({"seed": False}, "a whole number"),
    ],
)
def test_bad_configs_are_refused_at_birth(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(hc.ConfigError) as caught:
        hc.Hashed(**arguments)
    assert message in str(caught.value) and "Hashed(" in str(caught.value)


@pytest.mark.parametrize("tile", [False, True])
@pytest.mark.parametrize(
    "name", ["mlp", "cnn", "grouped", "transposed", "conv1d", "embedding", "tied", "attention"]
)
def test_every_layer_and_both_files(name: str, tile: bool, tmp_path: Path) -> None:
    model, inputs = build(name)
    compiled = hc.compile(model, inputs(2), hc.Hashed(0.4, tile), [inputs(32)])
    codes = encoded_weights(compiled.graph_module)
    assert codes and not any(code.scale is not None for code in codes.values())
    for check in compiled.export_onnx(tmp_path / "m.onnx"):
        assert check.error <= check.tolerance
    assert operators(tmp_path / "m.onnx") & {"HashedDecode", "HashedEmbedding"}
    for line in compiled.report():
        if line.method is not None:
            alone = line.kind == "embedding" and name != "tied"
            # its row of padding, which is zero, is known to the kernel
            form = "tile_padding" if tile else "element_padding"
            assert line.kernel == (f"HashedEmbedding {form}" if alone else None)
    compiled.save(tmp_path / "m.hc")
    loaded = hc.load(tmp_path / "m.hc")
    assert loaded.plan == compiled.plan
    x = inputs(3)
    with torch.no_grad():
        assert torch.equal(loaded(*x), compiled(*x))


@pytest.mark.parametrize("tile", [False, True])
def test_the_body_computes_the_very_same_weight(tile: bool, tmp_path: Path) -> None:
    """Read out by an identity: another bucket or sign anywhere would show."""
    torch.manual_seed(0)
    model = nn.Linear(150, 70, bias=False)
    compiled = hc.compile(model, (torch.eye(150),), hc.Hashed(0.1, tile), compute="float")
    compiled.export_onnx(tmp_path / "m.onnx")
    (code,) = encoded_weights(compiled.graph_module).values()
    got = stock(tmp_path / "m.onnx").run(None, {"input": np.eye(150, dtype=np.float32)})[0]
    assert np.array_equal(got.T, code.rows().detach().numpy())


@pytest.mark.parametrize("tile", [False, True])
def test_only_values_and_a_seed_are_stored(tile: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(512, 500, bias=False), nn.ReLU(), nn.Linear(500, 256, bias=False))
    compiled = hc.compile(model, (torch.randn(2, 512),), hc.Hashed(1 / 16, tile), compute="float")
    codes = encoded_weights(compiled.graph_module)
    counts = [len(code.values) for code in codes.values()]
    assert counts == [512 * 500 // 16 if not tile else 63 * 256, 500 * 256 // 16 if not tile else 32 * 256]
    assert [line.nbytes for line in compiled.report()] == [4 * count for count in counts]
    assert compiled.report().nbytes == 4 * sum(counts)

    compiled.export_onnx(tmp_path / "m.onnx")
    compiled.save(tmp_path / "m.hc", entropy=False)
    proto = onnx.load(tmp_path / "m.onnx")
    assert [list(tensor.dims) for tensor in proto.graph.initializer] == [[count] for count in counts]
    assert {onnx.helper.get_node_attr_value(node, "seed") for node in proto.graph.node if node.domain} == {
        code.seed for code in codes.values()
    }
    structure = 40_000  # nodes, bodies, names: bytes that do not grow with the layers
    samples = 4 * 2 * 512
    with zipfile.ZipFile(tmp_path / "m.hc") as archive:
        assert archive.getinfo("tensors.safetensors").file_size < 4 * sum(counts) + samples + 1000
    for path in (tmp_path / "m.onnx", tmp_path / "m.hc"):
        assert 4 * sum(counts) < path.stat().st_size < 4 * sum(counts) + samples + structure

    for path in (tmp_path / "m.onnx", tmp_path / "m.hc"):
        contents = inspect(path)
        assert [(layer.name, layer.shape, layer.bytes) for layer in contents.layers] == [
            (name, shape, 4 * count)
            for name, shape, count in zip("02", ((500, 512), (256, 500)), counts, strict=True)
        ]


@pytest.mark.parametrize("tile", [False, True])
def test_an_embedding_hashes_the_rows_that_are_read(tile: bool, tmp_path: Path) -> None:
    """No tensor of the loaded session is as large as the table; ids out of range are refused as by any table."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(3000, 40))
    ids = torch.tensor([[0, 2999, 17], [18, 2999, 1500]])
    compiled = hc.compile(model, (ids,), hc.Hashed(1 / 32, tile), compute="float")
    compiled.export_onnx(tmp_path / "m.onnx")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    session = ort.InferenceSession(str(tmp_path / "m.onnx"), options)
    loaded = onnx.load(tmp_path / "loaded.onnx")
    assert max(onnx.numpy_helper.to_array(tensor).nbytes for tensor in loaded.graph.initializer) <= 8 * 3840
    with torch.no_grad():
        assert np.array_equal(session.run(None, {"input": ids.numpy()})[0], compiled(ids).numpy())
    with pytest.raises(Exception, match="indices element out of data bounds"):
        session.run(None, {"input": np.array([[0, 3000, 1]])})


def test_with_calibration_unseen_outputs_are_closer() -> None:
    torch.manual_seed(0)
    model = nn.Linear(128, 96)
    mixing = torch.randn(128, 128) * torch.linspace(0.1, 3, 128)
    x, unseen = torch.randn(2000, 128) @ mixing, torch.randn(500, 128) @ mixing
    with torch.no_grad():
        wanted = model(unseen)
        free, fitted = (
            relative(hc.compile(model, (x[:2],), hc.Hashed(1 / 2), data, compute="float")(unseen), wanted)
            for data in (None, [(x,)])
        )
    assert fitted < 0.9 * free


def test_an_embedding_fits_the_rows_that_are_read() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(200, 32))
    ids = torch.randint(0, 20, (64, 10))
    with torch.no_grad():
        free, fitted = (
            relative(hc.compile(model, (ids[:2],), hc.Hashed(1 / 4), data)(ids), model(ids))
            for data in (None, [(ids,)])
        )
    assert fitted < 0.7 * free


def test_layers_have_hashes_of_their_own() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    x = torch.randn(2, 64)

    def seeds(seed: int) -> list[int]:
        graph = hc.compile(model, (x,), hc.Hashed(seed=seed)).graph_module
        return [code.seed for code in encoded_weights(graph).values()]

    assert len({*seeds(0), *seeds(1)}) == 4 and seeds(0) == seeds(0)


def test_layers_without_a_gain_are_left_alone(tmp_path: Path) -> None:
    """One weight; one row; less than a tile; and weights of zeros, which cost what others do."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 1), nn.Linear(1, 1), nn.Linear(1, 40))
    model[2].weight.data.zero_()
    x = torch.randn(2, 300)
    plan = hc.compile(model, (x,), hc.Hashed(1 / 8)).plan
    assert [decision.reason for decision in plan] == [
        None,
        "too small to gain: 4 bytes encoded, 4 bytes dense",
        None,
    ]
    tiled = hc.compile(model, (x,), hc.Hashed(1 / 8, tile=True))
    assert [decision.reason is None for decision in tiled.plan] == [True, False, False]
    assert "1024 bytes encoded, 160 bytes dense" in str(tiled.plan["2"].reason)
    compiled = hc.compile(model, (x,), hc.Hashed(1 / 8))
    assert all(check.error <= check.tolerance for check in compiled.export_onnx(tmp_path / "m.onnx"))
    assert bool((encoded_weights(compiled.graph_module)["2.weight"]() == 0).all())


def test_in_one_dict_with_a_codebook_and_behind_pruning(tmp_path: Path) -> None:
    model, inputs = build("cnn")
    method = [hc.PruneChannels(0.3), {"*": hc.Codebook(4), "head": hc.Hashed(1 / 2)}]
    compiled = hc.compile(model, inputs(2), method, [inputs(32)])
    assert [str(decision.config) for decision in compiled.plan] == ["codebook 4 bit"] * 2 + [
        "hashed, ratio 0.5"
    ]
    assert all(check.error <= check.tolerance for check in compiled.export_onnx(tmp_path / "m.onnx"))
    assert {"HashedDecode", "Chain"} <= operators(tmp_path / "m.onnx")
    hcrt.session(tmp_path / "m.onnx")

    pruned = hc.compile(model, inputs(2), [hc.PruneChannels(0.3), hc.Hashed(1 / 2)], compute="float")
    shapes = {name: code.view.shape for name, code in encoded_weights(pruned.graph_module).items()}
    assert all(pruned.plan[name].layer.view.shape == shape for name, shape in shapes.items())
    assert shapes["head.weight"][1] < 32
    pruned.export_onnx(tmp_path / "p.onnx")
    x = inputs(3)
    with torch.no_grad():
        assert relative(run(stock(tmp_path / "p.onnx"), x), pruned(*x)) < 1e-5


def test_an_untrained_network_keeps_its_scale_and_trains(data_dir: Path, tmp_path: Path) -> None:
    """Of eight random weights the mean is sqrt(8) too small; one of them is not. On 3,000 digits, for seconds."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 10))
    inputs, labels = mnist.images("mnist", "train", 3000)
    unseen, right = mnist.images("mnist", "test", 1000)
    means = hc.compile(model, (inputs[:2],), hc.Hashed(1 / 8), compute="float")
    compiled = hc.compile(model, (inputs[:2],), hc.Hashed(1 / 8, start="sample"), compute="float")

    def spread(of: hc.CompiledModel) -> float:
        with torch.no_grad():
            return float(encoded_weights(of.graph_module)["1.weight"]().std() / model[1].weight.std())

    assert spread(compiled) == pytest.approx(1, abs=0.02)
    assert spread(means) == pytest.approx(8**-0.5, abs=0.02)

    def accuracy(of: Any, x: Tensor) -> float:
        with torch.no_grad():
            return float((of(x).argmax(1) == right).float().mean())

    compiled.graph_module.train()
    optimizer = torch.optim.SGD(compiled.graph_module.parameters(), lr=0.02, momentum=0.9)
    assert sum(p.numel() for p in compiled.graph_module.parameters()) == 784 * 200 // 8 + 250 + 210
    for epoch in range(4):
        for batch in torch.randperm(3000, generator=torch.Generator().manual_seed(epoch)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(compiled.graph_module(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    compiled.graph_module.eval()
    assert accuracy(compiled, unseen) > 0.88 > 0.3 > accuracy(means, unseen)
    compiled.export_onnx(tmp_path / "m.onnx")
