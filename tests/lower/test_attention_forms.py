"""Attention as libraries and users write it: every form becomes the one operator."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import hashcompile as hc
from tests.lower.test_attention import agree, batch, example, operators, overloads, tokens

HEADS, SIZE = 4, 16
WIDTH = HEADS * SIZE
LEAST = torch.finfo(torch.float32).min


class Form(nn.Module):
    """Projections, and `attend` between them: (x (B, S, E), keep (B, S)) -> (B, S, E)."""

    shared = 1  # query heads that read one head of the keys

    def __init__(self) -> None:
        super().__init__()
        self.q, self.o = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.k = nn.Linear(WIDTH, WIDTH // self.shared, bias=False)
        self.v = nn.Linear(WIDTH, WIDTH // self.shared)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        parts = (y.view(*y.shape[:2], -1, SIZE) for y in (self.q(x), self.k(x), self.v(x)))
        return self.o(self.attend(*parts, keep).reshape(x.shape))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
        """All (B, S, heads, SIZE)."""
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))
        weights = self.masked(q @ k.transpose(-1, -2) / math.sqrt(SIZE), keep[:, None, None]).softmax(-1)
        return (weights @ v).transpose(1, 2)

    def masked(self, scores: Tensor, seen: Tensor) -> Tensor:
        return scores


class Filled(Form):
    def masked(self, scores, seen):
        return scores.masked_fill(seen == 0, -math.inf)


class FilledInPlace(Form):
    def masked(self, scores, seen):
        return scores.masked_fill_(~seen, LEAST)


class FilledWithBillions(Form):
    def masked(self, scores, seen):
        return scores.masked_fill(~seen, -1e9)


class Chosen(Form):
    def masked(self, scores, seen):
        return torch.where(seen, scores, torch.full([], LEAST))


class ChosenOtherwise(Form):
    def masked(self, scores, seen):
        return torch.where(~seen, -math.inf, scores)


class ChosenFromBuffer(Form):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("least", torch.tensor(-1e10))

    def masked(self, scores, seen):
        return torch.where(seen, scores, self.least)


class Turned(Form):
    """`.mT`, and queries that are scaled before the product."""

    def attend(self, q, k, v, keep):
        q, k, v = (y.transpose(1, 2) for y in (q * SIZE**-0.5, k, v))
        return (torch.softmax(q @ k.mT, dim=3) @ v).transpose(1, 2)


class Einsum(Form):
    def attend(self, q, k, v, keep):
        scores = torch.einsum("b i h d, b j h d -> b h i j", q, k) * SIZE**-0.5
        return torch.einsum("bhij,bjhd->bihd", self.masked(scores, keep[:, None, None]).softmax(-1), v)


class EinsumFilled(Einsum):
    masked = Filled.masked


class Repeated(Form):
    """Grouped queries with every head of the keys repeated, and a softmax in float32 whatever comes."""

    shared = 2

    def attend(self, q, k, v, keep):
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))
        bias = (1 - keep.float())[:, None, None, :] * LEAST
        scores = q @ self.repeated(k).transpose(2, 3) * SIZE**-0.5 + bias
        weights = functional.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
        return (functional.dropout(weights, 0.1, False) @ self.repeated(v)).transpose(1, 2)

    def repeated(self, x):
        B, H, S, D = x.shape
        return x[:, :, None, :, :].expand(B, H, self.shared, S, D).reshape(B, H * self.shared, S, D)


class RepeatedFused(Repeated):
    def attend(self, q, k, v, keep):
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))
        y = functional.scaled_dot_product_attention(
            q, self.repeated(k), self.repeated(v), keep[:, None, None]
        )
        return y.transpose(1, 2)


class OneHead(Form):
    """No dim for heads at all."""

    def forward(self, x, keep):
        weights = (self.q(x) @ self.k(x).transpose(1, 2) * WIDTH**-0.5).softmax(-1)
        return self.o(torch.bmm(weights, self.v(x)))


class Multihead(nn.Module):
    """Heads and samples in one dim, products by bmm: nn.MultiheadAttention that returns weights nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x, keep):
        return self.attention(x, x, x, key_padding_mask=~keep)[0]


class MultiheadUnmasked(Multihead):
    def forward(self, x, keep):
        return self.attention(x, x, x)[0] + keep.float().mean()


FORMS: tuple[Callable[[], nn.Module], ...] = (
    Filled,
    FilledInPlace,
    FilledWithBillions,
    Chosen,
    ChosenOtherwise,
    ChosenFromBuffer,
    Turned,
    Einsum,
    EinsumFilled,
    Repeated,
    RepeatedFused,
    OneHead,
    Multihead,
    MultiheadUnmasked,
)
UNIFORM = (FilledInPlace, FilledWithBillions, Chosen, ChosenFromBuffer, Repeated)  # where nothing is seen


def exported(model: nn.Module, folder: Path, compute: hc.Compute = "float") -> tuple[hc.CompiledModel, Path]:
    dims = {0: batch, 1: tokens}
    compiled = hc.compile(
        model.eval(),
        example(3, 9, WIDTH),
        method=hc.Codebook(bits=8),
        compute=compute,
        dynamic_shapes=(dims, dims),
    )
    path = folder / "m.onnx"
    compiled.export_onnx(path)
    return compiled, path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_operator(form: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    compiled, path = exported(form(), tmp_path)
    (overload,) = overloads(path)
    assert ("grouped" in overload) == (form in (Repeated, RepeatedFused))
    assert not {"Softmax", "MatMul", "Einsum"} & operators(path).keys()
    for B, S in ((2, 7), (1, 1), (3, 40)):
        agree(compiled, path, example(B, S, WIDTH))
    if form in UNIFORM:
        x, keep = example(2, 9, WIDTH)
        keep[1] = False
        agree(compiled, path, (x, keep))


@pytest.mark.parametrize("form", [Filled, Repeated, OneHead, Multihead])
def test_int8_is_verified_against_its_rounding(form: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    compiled, path = exported(form(), tmp_path, "int8")
    assert overloads(path)
    for check in compiled.export_onnx(path):
        assert check.error <= check.tolerance


class FilledWithHundred(Form):
    def masked(self, scores, seen):
        return scores.masked_fill(~seen, -100.0)


class FilledFromTensor(Form):
    def masked(self, scores, seen):
        return torch.where(seen, scores, -1e10 - seen.float().sum())


class Sharpened(Form):
    """What the mask makes is read twice."""

    def masked(self, scores, seen):
        scores = scores.masked_fill(~seen, -1e9)
        return scores + scores.mean().clamp(-1, 1)


@pytest.mark.parametrize("form", [FilledWithHundred, FilledFromTensor, Sharpened])
def test_other_forms_stay(form: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    compiled, path = exported(form(), tmp_path)
    assert overloads(path) == []
    agree(compiled, path, example(3, 8, WIDTH))
