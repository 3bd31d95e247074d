"""A codebook that learns over a mask: zeros stay, the rest find values, and what is stored is what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
from hashcompile.core.rows import RowView
from hashcompile.passes.codebook import CodebookWeight, LearningCodebook
from hashcompile.passes.sparse.learning import LearningSparse
from hashcompile.passes.sparse.weight import SparseCodes

LEARN = hc.Sparse(0, bits=2, learn=True)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(4, 24, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 40), nn.Linear(40, 3))


def batch(step: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(32, 4, 8, generator=torch.Generator().manual_seed(step))
    return x, x[:, :3].mean(2).argmax(1)


def train(model: nn.Module, steps: range, after: Any) -> list[float]:
    optimizer, losses = torch.optim.Adam(model.parameters(), 3e-3), []
    for step in steps:
        x, y = batch(step)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        after()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("by", ["soft", "straight-through"])
def test_pruned_then_shared_then_stored(by: Any, tmp_path: Path) -> None:
    model = network().train()
    schedule = hc.PruningSchedule(model, 0.7, end=20, every=5)
    train(model, range(30), schedule.step)
    masks = {name: mask.clone() for name, mask in schedule.masks.items()}
    training = hc.CodebookTraining(model, LEARN, steps=40, by=by)
    assert set(training.weights) == set(masks)
    start = {name: weight.stored() for name, weight in training.weights.items()}
    losses = train(model, range(60), training.step)
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    moved = [start[name].indices != code.stored().indices for name, code in training.weights.items()]  # type: ignore[union-attr, operator]
    assert any(bool(each.any()) for each in moved)
    training.freeze()
    for name, mask in masks.items():
        weight = model.get_submodule(name.rpartition(".")[0]).weight
        assert not weight[~mask].any()  # type: ignore[index, operator]
        code = model.get_submodule(name.removesuffix("weight") + "parametrizations.weight.0")
        assert isinstance(code, SparseCodes) and len(code.codebook) == 4 and code.codebook.requires_grad

    model.eval()
    x = batch(99)[0]
    compiled = hc.compile(model, (x[:2],), method=hc.Sparse(0, bits=2), compute="float")
    assert set(compiled.errors.values()) == {0.0} and len(compiled.errors) == 3
    torch.testing.assert_close(compiled(x), model(x))
    compiled.export_onnx(tmp_path / "m.onnx")
    (got,) = ort.InferenceSession(tmp_path / "m.onnx").run(None, {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), model(x).detach(), rtol=1e-4, atol=1e-5)
    anew = hc.compile(model, (x[:2],), method=hc.Sparse(0, bits=3), compute="float")
    assert max(anew.errors.values()) >= 0 and "3 bit" in str(anew.report())


@pytest.mark.parametrize("data", [False, True])
def test_begins_at_what_was_fitted(data: bool, tmp_path: Path) -> None:
    """Compiled with learn=True: the same start as without, trains in the graph, exports and saves what is stored."""
    model, x = network().eval(), batch(0)[0]
    given = {"importance": "sparsegpt"} if data else {}
    batches = [(x,)] if data else None
    plain = hc.compile(model, (x[:2],), hc.Sparse(0.6, bits=3, **given), batches, compute="float")
    compiled = hc.compile(
        model, (x[:2],), hc.Sparse(0.6, bits=3, learn=True, **given), batches, compute="float"
    )
    torch.testing.assert_close(compiled(x), plain(x))
    training = hc.CodebookTraining(compiled.graph_module, steps=20)
    assert all(isinstance(code, LearningSparse) for code in training.weights.values())
    losses = train(compiled.graph_module.train(), range(30), training.step)
    assert losses[-1] < losses[0]
    compiled.graph_module.eval()
    compiled.save(tmp_path / "m.hc")
    assert torch.equal(hc.load(tmp_path / "m.hc")(x), compiled(x))
    training.freeze()
    assert torch.equal(hc.load(tmp_path / "m.hc")(x), compiled(x))


@pytest.mark.parametrize("temperature", [0.0, 0.5])
@pytest.mark.parametrize("held", [False, True])
def test_forward_and_gradients_are_those_of_a_dense_code(held: bool, temperature: float) -> None:
    """Of which every weight that was pruned is left out."""
    draw = torch.Generator().manual_seed(0)
    mask = torch.rand(6, 9, generator=draw) < 0.4
    mask[2] = False
    weight, scale = torch.randn(6, 9, generator=draw), torch.rand(6, generator=draw) + 0.5
    table, above = torch.tensor([-1.0, -0.3, 0.2, 0.9]), torch.randn(6, 9, generator=draw)
    indices = torch.randint(4, (6, 9), generator=draw).to(torch.uint8)
    view = RowView((6, 9))
    sparse = LearningSparse(SparseCodes(view, mask, indices[mask], table, scale), weight[mask]).train()
    dense = LearningCodebook(
        CodebookWeight(view, 2, 0, indices, table[None], scale), weight, grid=False
    ).train()
    for code in (sparse, dense):
        code.temperature, code.held = temperature, held
        (code.rows() * above * mask).sum().backward()
    torch.testing.assert_close(sparse.rows(), dense.rows() * mask)
    assert torch.equal(sparse.stored().rows(), sparse.eval().rows())
    torch.testing.assert_close(sparse.latent.grad, dense.latent.grad[mask])  # type: ignore[index]
    torch.testing.assert_close(sparse.codebook.grad, dense.codebook.grad[0])  # type: ignore[index]
    torch.testing.assert_close(sparse.scale.grad, dense.scale.grad)


@pytest.mark.parametrize(
    ("method", "word"),
    [
        (hc.Sparse(0, bits=2), "learn=True"),
        (hc.Sparse(0.5, bits=2, learn=True, importance="wanda"), "by magnitude"),
        (hc.Sparse(0.5, bits=2, learn=True, scope="global"), "by magnitude"),
    ],
)
def test_refused(method: hc.Sparse, word: str) -> None:
    with pytest.raises(hc.ConfigError, match=word):
        hc.CodebookTraining(network(), method, steps=5)


def test_learning_needs_bits() -> None:
    with pytest.raises(hc.ConfigError, match="without bits"):
        hc.Sparse(0.5, learn=True)
