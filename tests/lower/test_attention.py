"""Attention in a graph -> one operator: which forms are recognised, and what they then compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
import hashcompile_runtime as hcrt
from hashcompile.core.method import CODES, COMPUTES
from hashcompile.core.rounding import round_attention
from hashcompile.lower.attention_op import Attention
from hashcompile.rounded import rounded

HEADS = 3
batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens", max=512)


class Block(nn.Module):
    """Self-attention as libraries write it; every variant is one flag."""

    def __init__(
        self, size: int = 5, kv_heads: int = HEADS, mask: str = "", form: str = "fused", causal: bool = False
    ):
        super().__init__()
        self.size, self.kv_heads, self.mask, self.form, self.causal = size, kv_heads, mask, form, causal
        self.q, self.o = nn.Linear(32, HEADS * size), nn.Linear(HEADS * size, 32)
        self.k, self.v = nn.Linear(32, kv_heads * size), nn.Linear(32, kv_heads * size)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        B, S, _ = x.shape
        q = self.q(x).view(B, S, HEADS, self.size).transpose(1, 2)
        k = self.k(x).view(B, S, self.kv_heads, self.size).transpose(1, 2)
        v = self.v(x).view(B, S, self.kv_heads, self.size).transpose(1, 2)
        if self.form == "turned":  # a rotary embedding needs heads apart
            q, k = q.cos() + q, k.cos() + k
        y = self.attend(q, k, v, self.masked(keep))
        if self.form == "kept by head":
            return self.o((y + 1).transpose(1, 2).reshape(B, S, HEADS * self.size))
        return self.o(y.transpose(1, 2).contiguous().view(B, S, HEADS * self.size))

    def masked(self, keep: Tensor) -> Tensor | None:
        B, S = keep.shape
        seen = keep[:, None, None, :]
        rows = torch.ones((1, 1, S, 1), dtype=torch.bool)
        return {
            "": None,
            "keys": seen,
            "expanded": (rows & seen).expand(B, -1, S, S),
            "full": seen & keep[:, None, :, None],
            "float": torch.where((rows & seen).expand(B, 1, S, S), 0.0, -3e38),
            "bias": keep.float()[:, None, None, :] - keep.float()[:, None, :, None],
        }[self.mask]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        if self.form != "written out":
            return nn.functional.scaled_dot_product_attention(
                q, k, v, mask, is_causal=self.causal, enable_gqa=self.kv_heads != HEADS
            )
        scores = q @ k.transpose(2, 3) * self.size**-0.5
        return nn.functional.dropout((scores if mask is None else scores + mask).softmax(-1), 0.1, False) @ v


def example(B: int, S: int, width: int = 32) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(100 * B + S)
    keep = torch.rand(B, S, generator=g) > 0.3
    if S:
        keep[:, 0] = True
    return torch.randn(B, S, width, generator=g), keep


def exported(model: nn.Module, folder: Path) -> tuple[hc.CompiledModel, Path]:
    torch.manual_seed(0)
    dims = {0: batch, 1: tokens}
    compiled = hc.compile(
        model.eval(), example(2, 7), method=hc.Codebook(bits=8), compute="float", dynamic_shapes=(dims, dims)
    )
    path = folder / "m.onnx"
    compiled.export_onnx(path)
    return compiled, path


def operators(path: Path) -> dict[str, int]:
    nodes = [node.op_type for node in onnx.load(str(path)).graph.node]
    return {name: nodes.count(name) for name in nodes}


def overloads(path: Path) -> list[str]:
    return [node.overload for node in onnx.load(str(path)).graph.node if node.op_type == "Attention"]


def agree(compiled: hc.CompiledModel, path: Path, inputs: tuple[Tensor, ...]) -> None:
    """Both runtimes compute what the graph does; 2e-5: some tens of roundings of values of about 1."""
    with torch.no_grad():
        wanted = compiled(*inputs)
    feeds: dict[str, Any] = dict(zip(("x", "keep"), (value.numpy() for value in inputs), strict=True))
    for session in (
        ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]),
        hcrt.session(path),
    ):
        used = {entry.name for entry in session.get_inputs()}
        got = torch.from_numpy(session.run(None, {name: feeds[name] for name in used})[0])
        torch.testing.assert_close(got, wanted, rtol=2e-5, atol=2e-5)


SHAPES = ((2, 7), (1, 1), (3, 40), (0, 4))


@pytest.mark.parametrize("mask", ["", "keys", "expanded", "full", "float", "bias"])
@pytest.mark.parametrize("form", ["fused", "written out", "turned", "kept by head"])
def test_forms_and_masks(form: str, mask: str, tmp_path: Path) -> None:
    if form == "written out" and mask in ("keys", "expanded", "full"):
        pytest.skip("bools are not added")
    compiled, path = exported(Block(mask=mask, form=form), tmp_path)
    (overload,) = overloads(path)
    assert overload.startswith("q4k4v3" if form == "turned" else "q3k3v3")
    assert "Softmax" not in operators(path)
    assert ("Transpose" in operators(path)) == (form in ("turned", "kept by head"))
    for B, S in SHAPES:
        agree(compiled, path, example(B, S))


@pytest.mark.parametrize("kv_heads", [1, HEADS])
@pytest.mark.parametrize("size", [1, 33])
def test_causal_grouped_and_odd_heads(kv_heads: int, size: int, tmp_path: Path) -> None:
    compiled, path = exported(Block(size, kv_heads, causal=True), tmp_path)
    assert overloads(path) == ["q3k3v3_grouped_causal" if kv_heads == 1 else "q3k3v3_causal"]
    for B, S in SHAPES:
        agree(compiled, path, example(B, S))


def test_masks_are_not_expanded(tmp_path: Path) -> None:
    _, path = exported(Block(mask="expanded"), tmp_path)
    model = onnx.load(str(path))
    (node,) = [node for node in model.graph.node if node.op_type == "Attention"]
    (shape,) = [
        value.type.tensor_type.shape for value in model.graph.value_info if value.name == node.input[3]
    ]
    assert [dim.dim_value or dim.dim_param for dim in shape.dim] == ["batch", 1, 1, "tokens"]


def test_a_query_that_sees_nothing(tmp_path: Path) -> None:
    """Zeros from scaled_dot_product_attention, and so the output layer's bias."""
    compiled, path = exported(Block(mask="full"), tmp_path)
    x, keep = example(2, 9)
    keep[1] = False
    agree(compiled, path, (x, keep))


def test_nan_stays_in_its_sample(tmp_path: Path) -> None:
    _, path = exported(Block(mask="keys"), tmp_path)
    x, keep = example(2, 9)
    clean = hcrt.session(path).run(None, {"x": x.numpy(), "keep": keep.numpy()})[0]
    x[1, 0, 0] = torch.nan
    for session in (hcrt.session(path), ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])):
        y = session.run(None, {"x": x.numpy(), "keep": keep.numpy()})[0]
        assert torch.from_numpy(y[1]).isnan().all()
        torch.testing.assert_close(torch.from_numpy(y[0]), torch.from_numpy(clean[0]))


class Reread(Block):
    """The weights are an output too."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        weights = (q @ k.transpose(2, 3)).softmax(-1)
        return weights @ v + weights.mean()


def test_weights_that_are_read_elsewhere_stay(tmp_path: Path) -> None:
    compiled, path = exported(Reread(), tmp_path)
    assert overloads(path) == []
    agree(compiled, path, example(3, 8))


class Columns(Block):
    """A softmax over queries is no attention."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return (q @ k.transpose(2, 3)).softmax(2) @ v


def test_a_bool_that_is_added_stays(tmp_path: Path) -> None:
    compiled, path = exported(Block(mask="keys", form="written out"), tmp_path)
    assert "Attention" not in operators(path)
    for B, S in SHAPES:
        agree(compiled, path, example(B, S))


@pytest.mark.parametrize(("name", "value"), [("num_heads", 0), ("num_heads", -HEADS), ("kv_heads", 2**62)])
def test_heads_that_are_none_are_refused(name: str, value: int, tmp_path: Path) -> None:
    _, path = exported(Block(), tmp_path)
    model = onnx.load(str(path))
    (node,) = (node for node in model.graph.node if node.op_type == "Attention")
    next(attribute for attribute in node.attribute if attribute.name == name).i = value
    with pytest.raises(hcrt.ModelError, match=f"{name} is {value}; wanted 1 to"):
        hcrt.session(model.SerializeToString())


def test_softmax_along_another_dim_stays(tmp_path: Path) -> None:
    compiled, path = exported(Columns(), tmp_path)
    assert overloads(path) == []
    agree(compiled, path, example(3, 8))


@pytest.mark.parametrize("form", ["fused", "written out", "turned"])
def test_int8(form: str, tmp_path: Path) -> None:
    """The file says so, and is verified with the error of rounding attention that `hashcompile.rounded` predicts."""
    torch.manual_seed(0)
    dims = {0: batch, 1: tokens}
    compiled = hc.compile(
        Block(16, mask="float", form=form).eval(),
        example(4, 40),
        method={"o": hc.Codebook(bits=8)},
        dynamic_shapes=(dims, dims),
    )
    path = tmp_path / "m.onnx"
    checks = compiled.export_onnx(path)
    (node,) = [node for node in onnx.load(str(path)).graph.node if node.op_type == "Attention"]
    assert {a.name: a.i for a in node.attribute}["compute"] == CODES["int8"]
    ours = next(check for check in checks if check.runtime == "hashcompile")
    assert 0 < ours.error <= ours.tolerance

    def targets(graph: torch.fx.GraphModule) -> list[Any]:
        return [node.target for node in graph.graph.nodes]

    assert round_attention in targets(rounded(compiled.graph_module, "int8", {}))
    assert round_attention not in targets(rounded(compiled.graph_module, "float", {}))


@pytest.mark.parametrize("compute", COMPUTES)
def test_products_are_rounded_in_int8_alone(compute):
    op = Attention(HEADS, HEADS, 5, 5, (3, 3, 3), 1.0, False, True, None, compute).op()
    assert op.attributes["compute"] == CODES["int8" if compute == "int8" else "float"]
