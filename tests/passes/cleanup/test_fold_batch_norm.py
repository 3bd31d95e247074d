"""Folding a batch norm changes no result: it happens where the norm sees output channels, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
from hashcompile.core.graph import flat_copy
from hashcompile.passes.cleanup.fold_batch_norm import fold_batch_norm

LENGTH = 32  # as many positions as channels: a norm over either fits


def norm() -> nn.BatchNorm1d:
    made = nn.BatchNorm1d(LENGTH)
    nn.init.uniform_(made.weight, 0.5, 1.5)
    nn.init.normal_(made.bias)
    nn.init.normal_(made.running_mean)
    nn.init.uniform_(made.running_var, 0.5, 1.5)
    return made


@pytest.mark.parametrize(
    ("shape", "folds"), [((3, 16, LENGTH), True), ((16, LENGTH), False)], ids=["batch", "one signal"]
)
def test_a_norm_is_folded_where_it_sees_channels(shape: tuple[int, ...], folds: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(16, LENGTH, 3, padding=1), norm()).eval()
    x = torch.randn(shape)
    compiled = hc.compile(model, (x,), hc.Codebook(4), [(x,)], dynamic_batch=False, compute="float")
    graph = flat_copy(compiled.graph_module)
    assert fold_batch_norm(graph) == folds
    with torch.no_grad():
        (folded,) = graph(x)
        torch.testing.assert_close(folded, compiled(x), rtol=1e-4, atol=1e-5)
        error = (compiled(x) - model(x)).norm() / model(x).norm()
    assert error < 0.15
    compiled.export_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(16, LENGTH, 3, padding=1),
        nn.Conv1d(16, LENGTH, 3, groups=4, bias=False),
        nn.ConvTranspose1d(16, LENGTH, 3, stride=2, groups=2),
    ],
    ids=["conv", "grouped", "transposed"],
)
def test_a_norm_behind_a_dense_layer_is_folded_where_that_is_asked_for(layer: nn.Module) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(layer, norm(), nn.Flatten(), nn.LazyLinear(8)).eval()
    x = torch.randn(3, 16, LENGTH)
    model(x)
    graph = flat_copy(hc.compile(model, (x,), {"*": None, "3": hc.Codebook(4)}, compute="float").graph_module)
    with torch.no_grad():
        (wanted,) = graph(x)
        assert not fold_batch_norm(graph)
        assert fold_batch_norm(graph, dense=True)
        (got,) = graph(x)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


class Sequence(nn.Module):
    """A linear layer over (B, T, K), behind it a norm of the positions."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, LENGTH, bias=False)
        self.norm = norm()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.fc(x))


def test_what_a_code_shifts_goes_into_no_norm_of_positions() -> None:
    torch.manual_seed(0)
    model = Sequence().eval()
    x = torch.randn(50, LENGTH, 64) + 2
    compiled = hc.compile(model, (x[:2],), hc.Codebook(2), [(x,)])
    norm_kept = torch.equal(compiled.graph_module.norm.running_var, model.norm.running_var)
    assert not norm_kept or torch.equal(compiled.graph_module.norm.running_mean, model.norm.running_mean)
