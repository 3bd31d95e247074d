"""The `.hc` file: what comes back is what was saved."""

from __future__ import annotations

import dataclasses
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
from hashcompile.core.encoded import encoded_weights
from tests.container.saved import TENSORS, Saved, same
from tests.models import build


def test_what_is_loaded_is_what_was_saved(saved: Saved, tmp_path: Path) -> None:
    loaded = hc.load(str(saved.path))
    same(loaded, saved.compiled)
    for batch in (1, 5):
        x = saved.inputs(batch)
        assert torch.equal(loaded(*x), saved.compiled(*x))
    with pytest.raises(hc.InputError):
        loaded(saved.inputs(2)[0].double())
    for compiled, name in ((saved.compiled, "a.onnx"), (loaded, "b.onnx")):
        dataclasses.replace(compiled, verify=False).export_onnx(tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    loaded.save(tmp_path / "again.hc")
    same(hc.load(tmp_path / "again.hc"), saved.compiled)


def test_groups_and_refusals_come_back(small: Saved) -> None:
    loaded = hc.load(small.path)
    same(loaded, small.compiled)
    assert loaded.plan["fc"].reason == "excluded by 'fc'"
    x = small.inputs(4)
    assert torch.equal(loaded(*x), small.compiled(*x))


def test_what_is_loaded_can_be_verified(small: Saved, tmp_path: Path) -> None:
    """With the inputs that the file keeps."""
    checks = hc.load(small.path).export_onnx(tmp_path / "m.onnx")
    assert [check.runtime for check in checks] == ["stock", "hashcompile"]
    assert all(check.runs >= 3 and check.error <= check.tolerance for check in checks)


def test_what_is_loaded_trains(saved: Saved) -> None:
    loaded = hc.load(saved.path)
    graph = loaded.graph_module
    assert not graph.training
    wanted = {n: p.requires_grad for n, p in saved.compiled.graph_module.named_parameters()}
    assert {n: p.requires_grad for n, p in graph.named_parameters()} == wanted
    graph.train()(*saved.inputs(4)).square().sum().backward()
    for code in encoded_weights(graph).values():
        assert code.codebook.grad is not None and bool(code.codebook.grad.abs().sum() > 0)


class Masked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        mask = torch.full((4, 4), -torch.inf).triu(1)
        return torch.where((x + mask).isnan(), torch.nan, (x + mask).softmax(-1).clamp(0.0, torch.inf))


def test_infinities_and_nan_come_back(tmp_path: Path) -> None:
    x = torch.randn(3, 4, 4)
    compiled = hc.compile(Masked(), (x,), hc.PruneChannels(0))
    compiled.save(tmp_path / "m.hc")
    x[0, 0, 0] = torch.nan
    torch.testing.assert_close(hc.load(tmp_path / "m.hc")(x), Masked()(x), rtol=0, atol=0, equal_nan=True)


def test_what_was_frozen_stays_frozen(tmp_path: Path) -> None:
    model, inputs = build("mixed")
    model.fc.bias.requires_grad_(False)
    compiled = hc.compile(model, inputs(2))
    compiled.graph_module.get_parameter("conv.weight.codebook").requires_grad_(False)
    compiled.save(tmp_path / "m.hc")
    wanted = {n: p.requires_grad for n, p in compiled.graph_module.named_parameters()}
    assert [n for n, trains in wanted.items() if not trains] == ["fc.bias", "conv.weight.codebook"]
    loaded = hc.load(tmp_path / "m.hc").graph_module
    assert {n: p.requires_grad for n, p in loaded.named_parameters()} == wanted


def test_a_tied_weight_stays_tied_and_is_stored_once(tmp_path: Path) -> None:
    model, inputs = build("tied")
    compiled = hc.compile(model, inputs(2), {"fc": hc.Codebook()})
    compiled.save(tmp_path / "m.hc")
    with zipfile.ZipFile(tmp_path / "m.hc") as archive:
        assert archive.getinfo(TENSORS).file_size < 2 * 80 * 32 * 4, "the table is 10 kB, and there once"
    loaded = hc.load(tmp_path / "m.hc")
    x = inputs(3)
    assert torch.equal(loaded(*x), compiled(*x))
    assert len({p.data_ptr() for p in loaded.graph_module.parameters()}) == len(
        {p.data_ptr() for p in compiled.graph_module.parameters()}
    )


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(32, 32)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        return {"b": self.fc(x) - y, "a": [x, (y,)]}


@pytest.mark.parametrize("by_name", [False, True])
def test_structured_inputs_and_outputs_come_back(by_name: bool, tmp_path: Path) -> None:
    x, y = torch.randn(3, 32), torch.randn(3, 32)
    compiled = hc.compile(Named(), {"x": x, "y": y} if by_name else (x, y))
    compiled.save(tmp_path / "m.hc")
    loaded = hc.load(tmp_path / "m.hc")
    got, wanted = (m(x=x, y=y) if by_name else m(x, y) for m in (loaded, compiled))
    assert list(got) == list(wanted) == ["b", "a"]
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)


def test_one_tensor_given_twice(tmp_path: Path) -> None:
    x = torch.randn(3, 32)
    hc.compile(Named(), (x, x)).save(tmp_path / "m.hc")
    hc.load(tmp_path / "m.hc")


def test_two_saves_are_equal(saved: Saved, tmp_path: Path) -> None:
    for name in ("1.hc", "2.hc"):
        saved.compiled.save(tmp_path / name)
    assert (tmp_path / "1.hc").read_bytes() == (tmp_path / "2.hc").read_bytes()


def test_the_file_holds_no_path_of_the_users(small: Saved) -> None:
    assert str(Path(__file__).parent).encode() not in small.data


def test_a_failure_keeps_the_old_file(saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.hc"
    path.write_bytes(b"old")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
    with pytest.raises(hc.ArtifactError, match="No space left"):
        saved.compiled.save(path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["m.hc"]


def test_places_that_cannot_be_written(saved: Saved, tmp_path: Path) -> None:
    with pytest.raises(hc.ArtifactError, match="there is no directory"):
        saved.compiled.save(tmp_path / "nowhere" / "m.hc")
    with pytest.raises(hc.ArtifactError, match="is a directory"):
        saved.compiled.save(tmp_path)
    assert os.listdir(tmp_path) == []
