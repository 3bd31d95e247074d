"""What verification accepts: every output by itself, by finite tolerances, and never a file that is wrong."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
from hashcompile.capture import capture
from hashcompile.lower import onnx as lower_onnx
from hashcompile.partial import record
from hashcompile.verify import distance, tolerance_of

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("got", "wanted", "error"),
    [
        ([3.0, 4.5], [3.0, 4.0], 0.1),
        ([NAN, 4.0], [NAN, 4.0], 0.0),
        ([INF, 1.0, -INF], [INF, 1.0, -INF], 0.0),
        ([NAN, 4.0], [4.0, 4.0], INF),
        ([4.0, 4.0], [NAN, 4.0], INF),
        ([INF, 1.0], [1.0, INF], INF),  # the same values at other places
        ([INF, 1.0], [-INF, 1.0], INF),
        ([INF, 1.0], [NAN, 1.0], INF),
        ([0.0, 0.5], [0.0, 0.0], 0.5),
        ([1e300, 1.0], [1.0, 1.0], INF),
        ([], [], 0.0),
    ],
)
def test_distance_of_floats(got: list[float], wanted: list[float], error: float) -> None:
    a, b = (torch.tensor(x, dtype=torch.float64) for x in (got, wanted))
    assert distance([a], [b]) == pytest.approx(error)
    good = torch.ones(3)
    assert distance([good, a], [good, b]) == pytest.approx(error), "the worst input counts"
    assert distance([a, good], [b, good]) == pytest.approx(error)


def test_distance_of_whole_numbers_is_the_share_that_differs() -> None:
    a, b = torch.tensor([1, 2, 3]), torch.tensor([1, 2, 4])
    assert distance([a], [b]) == pytest.approx(1 / 3)
    assert distance([a, a], [a, b]) == pytest.approx(1 / 6), "over all inputs together"
    assert distance([a > 2], [b > 3]) == 0
    assert distance([a], [a[:2]]) == INF
    assert distance([a], [a.float()]) == INF
    assert distance([a[:0]], [a[:0]]) == 0


def test_tolerance_of_whole_numbers() -> None:
    """What rounding does not reach is exact; one element more than predicted may turn over; one must agree."""
    wanted = torch.arange(1000)
    rounded = wanted.clone()
    rounded[:10] += 1
    assert tolerance_of([wanted], [wanted], reached=False) < 1 / 1000
    assert tolerance_of([rounded], [wanted], reached=True) == pytest.approx(0.021, abs=2e-4)
    assert tolerance_of([wanted + 1], [wanted], reached=True) < 1
    assert tolerance_of([wanted[:1]], [wanted[:1]], reached=True) == 0


def test_values_are_recorded_as_they_were_before_later_nodes_wrote_over_them() -> None:
    class Overwritten(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.exp().add_(1).sin()

    graph = capture(Overwritten(), (torch.zeros(2),)).graph
    assert torch.equal(record(graph, [torch.zeros(2)], {})["exp"], torch.ones(2))


class Outputs(nn.Module):
    """A layer, and what a user may return of it."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 512)
        self.what = what

    def forward(self, x: Tensor) -> Any:
        y = self.fc(x)
        return {
            "sign": (y, y > 0),
            "argmax": (y.argmax(-1), x + 1),
            "log": (y, y.relu().log()),
            "hidden": (y * 0 + x.sum() * 1e3, y),  # one large output must not hide a small one
        }[self.what]


def wrong(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """The lowering writes every second scale too large."""
    real = lower_onnx.lower

    def lower(*args: Any, **kwargs: Any) -> Any:
        lowered = real(*args, **kwargs)
        for name, value in lowered.model.graph.initializers.items():
            if name.endswith(".scale"):
                scale = value.const_value.numpy().copy()
                scale[::2] *= np.float32(factor)
                value.const_value = ir.tensor(scale, name=name)
        return lowered

    monkeypatch.setattr(lower_onnx, "lower", lower)


@pytest.mark.parametrize("what", ["sign", "argmax", "hidden"])
def test_right_files_pass_and_wrong_ones_do_not(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 64)
    compiled = hc.compile(Outputs(what), (x[:8],), calibration=[(x,)])
    for check in compiled.export_onnx(tmp_path / "m.onnx"):
        assert check.error <= check.tolerance < 1
    wrong(monkeypatch, -1.5)
    with pytest.raises(hc.VerificationError, match="differs from the compressed graph"):
        compiled.export_onnx(tmp_path / "m.onnx")


def test_rounding_that_leaves_nothing_of_an_output_is_refused(tmp_path: Path) -> None:
    """log(relu(y)) is -inf at places that rounding moves: no finite tolerance could tell right from wrong."""
    torch.manual_seed(0)
    x = torch.randn(64, 64)
    with pytest.raises(hc.VerificationError, match=r'output 1.*compute="float"'):
        hc.compile(Outputs("log"), (x[:8],), calibration=[(x,)]).export_onnx(tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
    hc.compile(Outputs("log"), (x[:8],), calibration=[(x,)], compute="float").export_onnx(tmp_path / "m.onnx")
