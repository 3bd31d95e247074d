"""Norms in a graph -> one operator: which forms are recognised, and what they then compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import hashcompile as hc
import hashcompile_runtime as hcrt

SIZE = 33
batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens", max=64)


class Written(nn.Module):
    """RMS norm as libraries write it."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, self.weight = form, nn.Parameter(torch.rand(SIZE) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = x.to(torch.float32)
        match self.form:
            case "pow":
                y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)
            case "product":
                y = torch.rsqrt((y * y).mean(2, keepdim=True) + 1e-6) * y
            case "cube":
                y = y * torch.rsqrt(y.pow(4).mean(-1, keepdim=True) + 1e-6)
            case "other rows":
                y = y * torch.rsqrt(y.pow(2).mean(1, keepdim=True) + 1e-6)
            case "another value":
                y = y * torch.rsqrt((y + 1).pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * y.to(x.dtype)


class Block(nn.Module):
    """A layer, a sum, a norm; `use` says what becomes of them."""

    def __init__(self, norm: nn.Module, use: str = "post", bias: bool = True) -> None:
        super().__init__()
        self.layer, self.norm, self.use = nn.Linear(SIZE, SIZE, bias=bias), norm, use
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        if self.use == "alone":
            return self.layer(self.norm(x))
        total = self.dropout(self.layer(x)) + (x[:, :1] if self.use == "broadcast" else x)
        return total + self.norm(total) if self.use == "pre" else self.norm(total)


def randomised(norm: nn.Module) -> nn.Module:
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm


FORMS = {
    "layer_bias": lambda: randomised(nn.LayerNorm(SIZE, eps=0.1)),
    "layer": lambda: randomised(nn.LayerNorm(SIZE, bias=False)),
    "layer plain": lambda: nn.LayerNorm(SIZE, elementwise_affine=False),
    "rms": lambda: randomised(nn.RMSNorm(SIZE)),
    "rms plain": lambda: nn.RMSNorm(SIZE, eps=0.2, elementwise_affine=False),
    "rms pow": lambda: Written("pow"),
    "rms product": lambda: Written("product"),
}


def exported(model: nn.Module, folder: Path) -> tuple[hc.CompiledModel, Path]:
    torch.manual_seed(0)
    x = torch.randn(2, 7, SIZE)
    dims = ({0: batch, 1: tokens},)
    compiled = hc.compile(
        model.eval(), (x,), hc.Codebook(bits=8), compute="float", dynamic_shapes=dims, progress=False
    )
    compiled.export_onnx(folder / "m.onnx")
    return compiled, folder / "m.onnx"


def norms(path: Path) -> list[str]:
    return [node.overload for node in onnx.load(str(path)).graph.node if node.op_type == "Norm"]


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(str(path)).graph.node}


def agree(compiled: hc.CompiledModel, path: Path, x: Tensor) -> None:
    """Both runtimes compute what the graph does; 2e-5: some tens of roundings of values of about 1."""
    with torch.no_grad():
        wanted = compiled(x)
    for session in (ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]), hcrt.session(path)):
        got = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
        torch.testing.assert_close(got, wanted, rtol=2e-5, atol=2e-5, equal_nan=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("use", ["post", "pre", "alone"])
def test_forms(form, use, tmp_path):
    compiled, path = exported(Block(FORMS[form](), use), tmp_path)
    kind = form.split()[0]
    assert norms(path) == [kind + ("_residual" if use == "post" else "")]
    assert operators(path) <= {"CodebookLinear", "Norm", "Add"}
    assert ("Add" in operators(path)) == (use == "pre")  # the last one: the first belongs to the layer
    for shape in ((2, 7), (1, 1), (3, 40)):
        agree(compiled, path, torch.randn(*shape, SIZE))
    x = torch.randn(2, 7, SIZE)
    x[1, 3, 5] = torch.nan
    agree(compiled, path, x)


def test_a_sum_that_broadcasts_stays(tmp_path):
    compiled, path = exported(Block(FORMS["layer_bias"](), "broadcast"), tmp_path)
    assert norms(path) == ["layer_bias"]
    assert "Add" in operators(path)
    agree(compiled, path, torch.randn(3, 5, SIZE))


@pytest.mark.parametrize("form", ["cube", "other rows", "another value"])
def test_what_is_no_norm_stays(form, tmp_path):
    compiled, path = exported(Block(Written(form)), tmp_path)
    assert norms(path) == []
    agree(compiled, path, torch.randn(3, 5, SIZE))


class Double(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.weight = nn.Linear(SIZE, SIZE), nn.Parameter(torch.rand(SIZE))

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True, dtype=torch.float64) + 1e-6) * self.weight


def test_a_norm_in_double_precision_stays(tmp_path):
    compiled, path = exported(Double(), tmp_path)
    assert norms(path) == []
    agree(compiled, path, torch.randn(3, 5, SIZE))


class OverTwo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(SIZE, SIZE)

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(self.layer(x), (4, SIZE))


def test_a_norm_over_two_dimensions_stays(tmp_path):
    torch.manual_seed(0)
    compiled = hc.compile(OverTwo().eval(), (torch.randn(2, 4, SIZE),), hc.Codebook(bits=8), progress=False)
    compiled.export_onnx(tmp_path / "m.onnx")
    assert norms(tmp_path / "m.onnx") == []


def edited(path: Path, name: str, shape: tuple[int, ...]) -> bytes:
    """The model with another shape of one input of its norm."""
    model = onnx.load(str(path))
    (norm,) = (node for node in model.graph.node if node.op_type == "Norm")
    held = next(
        tensor for tensor in model.graph.initializer if tensor.name == norm.input[1 + (name == "bias")]
    )
    held.CopyFrom(onnx.numpy_helper.from_array(np.ones(shape, np.float32), held.name))
    return model.SerializeToString()


@pytest.mark.parametrize("name", ["weight", "bias"])
@pytest.mark.parametrize("shape", [(SIZE - 1,), (1, SIZE), ()])
def test_an_affine_part_of_another_shape_is_refused(name, shape, tmp_path):
    _, path = exported(Block(FORMS["layer_bias"]()), tmp_path)
    session = hcrt.session(edited(path, name, shape))
    with pytest.raises(Exception, match=rf"Norm '.*{name} has shape .*wanted \({SIZE}\)"):
        session.run(None, {"x": np.zeros((1, 1, SIZE), np.float32)})
