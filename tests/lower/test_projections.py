"""Projections that one attention reads -> one layer, and attention on parts of one tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
import hashcompile_runtime as hcrt
from hashcompile.core.rows import RowView
from hashcompile.lower import fuse
from hashcompile.lower.projections import joint_name
from hashcompile.passes.codebook import CodebookWeight
from tests.lower.test_attention import SHAPES, agree, batch, example, overloads, tokens

HEADS, SIZE, WIDTH = 3, 16, 32


class Projected(nn.Module):
    """An attention, and what may keep its projections apart."""

    def __init__(self, form: str, masked: bool) -> None:
        super().__init__()
        self.form, self.masked = form, masked
        self.q, self.k = nn.Linear(WIDTH, HEADS * SIZE), nn.Linear(WIDTH, HEADS * SIZE)
        self.v = nn.Linear(WIDTH, HEADS * SIZE, bias=form != "no bias")
        self.qkv = nn.Linear(WIDTH, 3 * HEADS * SIZE)
        self.o = nn.Linear(HEADS * SIZE, WIDTH)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        size = HEADS * SIZE
        if self.form == "split":
            q, k, v = self.qkv(x).split(size, dim=-1)
            return q, k, v
        if self.form == "chunk":
            q, k, v = self.qkv(x).chunk(3, dim=2)
            return q, k, v
        if self.form in ("slices", "swapped"):
            y, at = self.qkv(x), (0, 1, 2) if self.form == "slices" else (1, 0, 2)
            q, k, v = (y[..., i * size : (i + 1) * size] for i in at)
            return q, k, v
        if self.form == "tied":
            return self.q(x), self.k(x), self.k(x) + self.v(x)
        return self.q(x), self.k(x), self.v(x * 0.5 if self.form == "another input" else x)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        B, S, _ = x.shape
        flat = self.project(x)
        q, k, v = (part.view(B, S, HEADS, SIZE).transpose(1, 2) for part in flat)
        mask = torch.where(keep[:, None, None, :], 0.0, -3e38) if self.masked else None
        y = self.o(
            nn.functional.scaled_dot_product_attention(q, k, v, mask)
            .transpose(1, 2)
            .reshape(B, S, HEADS * SIZE)
        )
        return y + flat[2].mean() if self.form == "read again" else y


def exported(
    folder: Path, form: str = "", masked: bool = False, method: Any = None, compute: Any = "float"
) -> tuple[hc.CompiledModel, Path]:
    torch.manual_seed(0)
    dims = {0: batch, 1: tokens}
    compiled = hc.compile(
        Projected(form, masked).eval(),
        example(2, 7),
        method=method or hc.Codebook(bits=4),
        compute=compute,
        dynamic_shapes=(dims, dims),
    )
    path = folder / "m.onnx"
    compiled.export_onnx(path)
    return compiled, path


def layers(path: Path) -> list[str]:
    return [node.name for node in onnx.load(str(path)).graph.node if node.op_type == "CodebookLinear"]


@pytest.mark.parametrize(("form", "masked"), [("", False), ("", True), ("no bias", False)])
def test_three_become_one(form: str, masked: bool, tmp_path: Path) -> None:
    compiled, path = exported(tmp_path, form, masked)
    assert overloads(path) == ["packed_float32_zero" if masked else "packed"]
    assert layers(path) == ["q_k_v", "o"]
    for B, S in SHAPES:
        agree(compiled, path, example(B, S))
    assert {layer.name: layer.kernel for layer in compiled.report()}["k"] == "CodebookLinear u4_bias float"


def test_int8_keeps_every_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The input's scale is that of its row, and every projection keeps its own table."""
    x, keep = example(2, 40)
    outputs = []
    for _ in range(2):
        _, path = exported(tmp_path, masked=True, compute="int8")
        outputs.append(hcrt.session(path).run(None, {"x": x.numpy(), "keep": keep.numpy()})[0])
        monkeypatch.setattr(fuse, "join_projections", lambda _: {})
    assert layers(path) == ["q", "k", "v", "o"]
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize("form", ["another input", "read again", "tied"])
def test_projections_that_stay_apart(form: str, tmp_path: Path) -> None:
    compiled, path = exported(tmp_path, form)
    assert overloads(path) == ["q3k3v3"]
    assert layers(path)[:3] == ["q", "k", "v"] if form != "tied" else len(layers(path)) == 5
    agree(compiled, path, example(3, 8))


@pytest.mark.parametrize("other", [None, hc.Codebook(bits=3)])
def test_weights_that_are_encoded_otherwise_stay_apart(other: Any, tmp_path: Path) -> None:
    compiled, path = exported(tmp_path, method={"*": hc.Codebook(bits=4), "k": other})
    assert overloads(path) == ["q3k3v3"]
    agree(compiled, path, example(3, 8))


@pytest.mark.parametrize(
    ("form", "overload"),
    [("split", "packed"), ("chunk", "packed"), ("slices", "packed"), ("swapped", "q3k3v3")],
)
def test_parts_of_one_tensor(form: str, overload: str, tmp_path: Path) -> None:
    compiled, path = exported(tmp_path, form)
    assert overloads(path) == [overload]
    for B, S in SHAPES:
        agree(compiled, path, example(B, S))


@pytest.mark.parametrize("held", [nn.Parameter(torch.ones(1)), nn.Identity(), torch.ones(1)])
def test_the_name_of_the_joint_layer_is_free(held: Any) -> None:
    graph = torch.fx.GraphModule(nn.Module(), torch.fx.Graph())
    graph.add_module("a", nn.Module())
    parameters = ["a.q.weight", "a.k.weight", "a.v.weight"]
    assert joint_name(graph, parameters) == "a.q_k_v"
    if isinstance(held, nn.Module | nn.Parameter):
        graph.a.q_k_v = held
    else:
        graph.a.register_buffer("q_k_v", held)
    assert joint_name(graph, parameters) == "a.q_k_v_"


def code(rows: int, bits: int = 4, group_rows: int = 0, seed: int = 0, columns: int = 512) -> CodebookWeight:
    g = torch.Generator().manual_seed(seed)
    tables = -(-rows // group_rows) if group_rows else 1
    indices = torch.randint(2**bits, (rows, columns), generator=g, dtype=torch.uint8)
    book, scale = torch.randn(tables, 2**bits, generator=g), torch.rand(rows, generator=g)
    return CodebookWeight(RowView((rows, columns)), bits, group_rows, indices, book, scale)


@pytest.mark.parametrize(
    ("codes", "group_rows", "tables"),
    [
        ([code(48), code(48, seed=1), code(48, seed=2)], 48, 3),
        ([code(64), code(32, seed=1), code(32, seed=2)], 32, 4),
        ([code(64, group_rows=32), code(32, seed=1)], 32, 3),
        ([code(5), code(5)], 0, 1),  # one table for both
    ],
)
def test_joined_codes(codes: list[CodebookWeight], group_rows: int, tables: int) -> None:
    joined = codes[0].joined(codes[1:])
    assert joined is not None
    assert (joined.group_rows, len(joined.codebook)) == (group_rows, tables)
    torch.testing.assert_close(joined(), torch.cat([part() for part in codes]), rtol=0, atol=0)


@pytest.mark.parametrize(
    "codes",
    [
        [code(48), code(48, bits=3)],
        [code(48), code(48, seed=1, columns=256)],
        [code(40), code(40, seed=1)],  # tables belong to multiples of 16 rows
        [code(1024, columns=8), code(16, seed=1, columns=8)],  # 64 copies of a table
    ],
)
def test_codes_that_cannot_be_joined(codes: list[CodebookWeight]) -> None:
    assert codes[0].joined(codes[1:]) is None
