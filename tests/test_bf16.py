"""compute="bf16": from the call to the file, and what its rounding costs."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
import hashcompile_runtime as hcrt
from hashcompile.inspector import inspect
from hashcompile.rounded import rounded
from hashcompile.verify import relative_error

HAS_BF16 = any(
    kernel.selected and kernel.name.startswith("codebook_bf16_u4_avx512") for kernel in hcrt.kernels()
)


class Tied(nn.Module):
    """A weight that is read by rows in fp32, and multiplied in bf16; a convolution; a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.conv = nn.Embedding(48, 32), nn.Conv1d(32, 32, 3, padding=1)
        self.up, self.head = nn.Linear(32, 64), nn.Linear(32, 48, bias=False)
        self.down = nn.Linear(64, 32)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.conv(self.embed(ids).transpose(1, 2)).relu().transpose(1, 2)
        return self.head(self.down(self.up(x).relu()))


@pytest.fixture(scope="module")
def compiled() -> hc.CompiledModel:
    torch.manual_seed(0)
    return hc.compile(
        Tied().eval(), (torch.randint(48, (4, 9)),), hc.Codebook(4), compute="bf16", progress=False
    )


def test_the_file_says_so_and_is_verified(compiled: hc.CompiledModel, tmp_path: Path) -> None:
    stock, ours = compiled.export_onnx(tmp_path / "m.onnx")
    assert stock.error <= 1e-4
    assert ours.tolerance > 1e-4
    nodes = [
        n
        for n in onnx.load(tmp_path / "m.onnx").graph.node
        if n.op_type in ("CodebookLinear", "CodebookConv")
    ]
    assert len(nodes) == 4
    assert all(a.i == 2 for node in nodes for a in node.attribute if a.name == "compute")
    assert "bf16" in str(inspect(tmp_path / "m.onnx"))


def test_the_rounding_is_reported_and_kept(compiled: hc.CompiledModel, tmp_path: Path) -> None:
    report = compiled.report()
    assert report.rounding_error is not None and 0 < report.rounding_error < 0.02  # a few roundings of 2^-9
    assert f"bf16 activations: relative error {report.rounding_error:.2%}" in str(report)
    assert report["up"].kernel is not None and report["up"].kernel.endswith("bf16")
    compiled.save(tmp_path / "m.hc")
    loaded = hc.load(tmp_path / "m.hc")
    assert loaded.compute == "bf16" and loaded.rounding_error == compiled.rounding_error


def test_the_prediction_is_what_the_kernels_do(compiled: hc.CompiledModel, tmp_path: Path) -> None:
    """To the rounding of other sums, some hundred times smaller; another CPU computes in fp32."""
    compiled.export_onnx(tmp_path / "m.onnx")
    ids = torch.randint(48, (4, 9))
    (got,) = hcrt.session(tmp_path / "m.onnx").run(None, {"ids": ids.numpy()})
    with torch.no_grad():
        exact = compiled(ids)
        (predicted,) = rounded(compiled.graph_module, "bf16", {})(ids)
    from_exact, from_predicted = (relative_error(torch.from_numpy(got), of) for of in (exact, predicted))
    if HAS_BF16:
        assert from_exact > 1e-3
        assert (
            from_predicted < from_exact / 10
        )  # a sum in another order may round a value of the next layer otherwise
    else:
        assert from_exact < 1e-5


def test_training_goes_on_in_fp32(compiled: hc.CompiledModel) -> None:
    """What the graph means in PyTorch is not rounded."""
    parameters = dict(compiled.graph_module.named_parameters())
    tables = [table for name, table in parameters.items() if name.endswith("codebook")]
    assert tables and all((table != table.bfloat16().float()).any() for table in tables)
