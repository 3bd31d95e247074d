"""TVM's libraries on inputs that no example had: places outside of a tensor, infinities and NaN."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc

pytest.importorskip("tvm", reason="TVM is not installed: pip install 'hashcompile[tvm]'")

from hashcompile.lower.tvm_library import runner


class Chosen(nn.Module):
    def forward(self, x: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x.index_select(-1, at), x[:, at], (x > 0).index_select(1, at)


def test_places_outside_of_a_tensor_read_nothing_else(tmp_path: Path) -> None:
    given = (torch.arange(12.0).reshape(2, 6), torch.tensor([5, 0]))
    hc.compile(Chosen(), given, hc.PruneChannels(0)).export_tvm(tmp_path / "m.so")
    run = runner(tmp_path / "m.so")
    for got in run((given[0], torch.tensor([6, 1])))[:2]:
        assert bool(got[:, 0].isnan().all()) and torch.equal(got[:, 1], given[0][:, 1])
    assert run((given[0], torch.tensor([10**9, 0])))[2].tolist() == [[True, False], [True, True]]


class Written(nn.Module):
    def forward(self, x: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, y = torch.arange(x.shape[0]), x.clone()
        y[rows, at] = 9.0
        return y, x[rows, at], y.index_put((rows, at), torch.ones(()), accumulate=True)


@pytest.mark.parametrize("outside", [6, 10**9, -7])
def test_places_outside_of_a_tensor_are_not_written(outside: int, tmp_path: Path) -> None:
    x = torch.arange(12.0).reshape(2, 6)
    hc.compile(Written(), (x, torch.tensor([1, 0])), hc.PruneChannels(0)).export_tvm(tmp_path / "m.so")
    written, read, added = runner(tmp_path / "m.so")((x, torch.tensor([outside, 1])))
    x[1, 1] = 9
    assert torch.equal(written, x) and bool(read[0].isnan()) and read[1] == 7
    x[1, 1] += 1
    assert torch.equal(added, x)


class Best(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x.argmax(1), x.argmin(1), x.max(1).indices, x.min(1).indices, x.argmax(), x.argmin(0, True))


def test_the_place_of_infinities_and_nan(tmp_path: Path) -> None:
    inf, nan = torch.inf, torch.nan
    rows = [
        [-inf] * 3,
        [inf] * 3,
        [nan, 1, 2],
        [1, nan, 3],
        [-inf, 0, inf],
        [0.0, 0, -1],
        [torch.finfo().min] * 3,
    ]
    x = torch.tensor(rows)
    hc.compile(Best(), (torch.randn(7, 3),), hc.PruneChannels(0)).export_tvm(tmp_path / "m.so")
    for got, wanted in zip(runner(tmp_path / "m.so")((x,)), Best()(x), strict=True):
        assert torch.equal(got, wanted)
