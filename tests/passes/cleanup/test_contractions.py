"""einsum in the words of matmul: the same values in float64, and only where it is one product of matrices."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hashcompile.passes.cleanup.contractions import name_contractions, parse

aten = torch.ops.aten
SIZES = dict(zip("abcdef", (2, 3, 4, 5, 1, 6), strict=True))


class Einsum(nn.Module):
    def __init__(self, equation: str) -> None:
        super().__init__()
        self.equation = equation

    def forward(self, x, y):
        return torch.einsum(self.equation, x, y)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), batch=st.integers(0, 3))
def test_any_order_of_dims(data, batch):
    letters = "abcdef"[: batch + 3]
    summed, row, column, *rest = letters
    words = ([summed, row, *rest], [summed, column, *rest], [row, column, *rest])
    left, right, out = ("".join(data.draw(st.permutations(word))) for word in words)
    x, y = (torch.randn([SIZES[letter] for letter in word], dtype=torch.float64) for word in (left, right))
    graph = torch.export.export(Einsum(f"{left}, {right} -> {out}"), (x, y)).module()
    name = next(node.name for node in graph.graph.nodes if node.target is aten.einsum.default)
    assert name_contractions(graph)
    assert name in [node.name for node in graph.graph.nodes]
    assert all(node.target is not aten.einsum.default for node in graph.graph.nodes)
    torch.testing.assert_close(graph(x, y), torch.einsum(f"{left},{right}->{out}", x, y))
    assert not name_contractions(graph)


@pytest.mark.parametrize(
    "equation",
    [
        "ij,jk",
        "...ij,jk->...ik",
        "ii,ik->ik",
        "ij,ij->i",
        "ij,jk->k",
        "ij,jk,kl->il",
        "ijl,jk->ik",
        "ij,kl->ijkl",
    ],
)
def test_what_is_no_product_of_matrices(equation):
    assert parse(equation) is None
