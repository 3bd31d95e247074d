"""Linear layers that multiply from the pool of tiles: chosen where that pays, and equal to the graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import hashcompile as hc
import hashcompile_runtime as hcrt
from hashcompile.core.encoded import encoded_weights
from hashcompile.core.rows import RowView
from hashcompile.inspector import inspect
from hashcompile.passes.hashed import HashedWeight
from hashcompile.passes.hashed import onnx as lowered
from tests.oracle import DOMAIN, relative, run, stock


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node if node.domain == DOMAIN}


@pytest.mark.parametrize(
    ("shape", "tiles", "tile", "wanted"),
    [
        ((1024, 1024), 1024, True, True),
        ((1024, 1024), 1024, False, False),
        ((1024, 1024), 1025, True, False),  # a pool of more than 1 MiB
        ((1023, 1024), 1024, True, False),  # a dense weight of less than 4 MiB
    ],
)
def test_the_kernel_is_taken_where_it_pays(
    shape: tuple[int, int], tiles: int, tile: bool, wanted: bool
) -> None:
    code = HashedWeight(RowView(shape), torch.zeros(256 * tiles), 0, tile)
    assert lowered.pays(code) == wanted


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("compute", ["float", "int8"])
def test_file_and_graph_agree(
    bias: bool, compute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small, and taken nevertheless; odd sizes."""
    monkeypatch.setattr(lowered, "DENSE_BYTES", 0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(75, 53, bias=bias), nn.ReLU())
    x = torch.randn(9, 75)
    method = hc.Hashed(1 / 4, tile=True)
    compiled = hc.compile(model.eval(), (x,), method, compute=compute)  # type: ignore[arg-type]
    for check in compiled.export_onnx(tmp_path / "m.onnx"):
        assert check.error <= 1e-4
    assert operators(tmp_path / "m.onnx") == {"HashedLinear"}
    (line,) = compiled.report()
    assert line.kernel == f"HashedLinear tile{'_bias' if bias else ''}"
    with torch.no_grad():
        wanted = compiled(x)
    for session in (stock(tmp_path / "m.onnx"), hcrt.session(tmp_path / "m.onnx")):
        assert relative(run(session, (x,)), wanted) < 1e-5
    (found,) = inspect(tmp_path / "m.onnx").layers
    assert found.shape == (53, 75) and found.name == "0"


def test_the_dense_weight_is_never_in_memory(tmp_path: Path) -> None:
    """A session of ours holds less than half of it; the file holds the values alone."""
    model = nn.Linear(2048, 2048)
    compiled = hc.compile(model, (torch.randn(2, 2048),), hc.Hashed(1 / 64, tile=True), compute="float")
    compiled.export_onnx(tmp_path / "m.onnx")
    assert operators(tmp_path / "m.onnx") == {"HashedLinear"}
    assert (tmp_path / "m.onnx").stat().st_size < 4 * 2048 * 2048 / 64 + 50_000
    (code,) = encoded_weights(compiled.graph_module).values()
    x = torch.randn(3, 2048)
    got = run(hcrt.session(tmp_path / "m.onnx"), (x,))
    exact = x.double() @ code.rows().detach().double().T + model.bias.detach().double()
    assert np.abs(got - exact.numpy()).max() < 1e-4 * float(exact.abs().max())
