"""Interpolative in the pipeline: what can be told from others goes, and is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
from tests import models


def linear_chain(width: int, rank: int) -> nn.Module:
    """Units of which all are combinations of `rank` others, behind no activation; and a flattened image."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, width, 3),
        nn.AvgPool2d(2),
        nn.Conv2d(width, 6, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24, 5),
    ).double()
    with torch.no_grad():
        mix = torch.randn(width, rank, dtype=torch.float64)
        for tensor in (model[0].weight, model[0].bias):
            tensor.copy_(torch.tensordot(mix, tensor[:rank], 1))  # type: ignore[operator, index, union-attr]
    return model.eval()


def test_exact_rank_is_kept_and_nothing_is_lost() -> None:
    model = linear_chain(10, 4)
    x = torch.randn(40, 3, 6, 6, dtype=torch.float64)
    method = {"0": hc.Interpolative(tolerance=1e-4)}
    compiled = hc.compile(model, (x[:2],), method=method, calibration=[(x[:20],), (x[20:],)])
    assert len(compiled.plan.kept["0.weight"][0]) == 4
    fresh = torch.randn(9, 3, 6, 6, dtype=torch.float64)
    error = (compiled(fresh) - model(fresh)).norm() / model(fresh).norm()
    plain = hc.compile(
        model, (x[:2],), method={"0": hc.Interpolative(1e-4, correction=False)}, calibration=[(x,)]
    )
    lost = (plain(fresh) - model(fresh)).norm() / model(fresh).norm()
    assert lost > 0.2 and error < 1e-4


@pytest.mark.parametrize("correction", ["fold", "refit"])
@pytest.mark.parametrize("samples", [24, 400])
def test_what_is_redundant_is_told_however_alike_all_directions_are(correction: Any, samples: int) -> None:
    """30 units of rank 12, as many as there are inputs; and 20 of which 10 are twice the others."""
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Linear(12, 30), nn.Linear(30, 9))
    double = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 9))
    with torch.no_grad():
        for tensor in (double[0].weight, double[0].bias):
            tensor[10:] = 2 * tensor[:10]  # type: ignore[index]
    x, fresh = torch.randn(samples, 12), torch.randn(500, 12)
    for model, rank in ((linear, 12), (double, 10)):
        method = hc.Interpolative(tolerance=1e-3, correction=correction)
        compiled = hc.compile(model.eval(), (x[:2],), method=method, calibration=[(x,)])
        assert len(compiled.plan.kept["0.weight"][0]) == rank
        for inputs in (x, fresh):
            with torch.no_grad():
                assert (compiled(inputs) - model(inputs)).norm() < 1e-3 * model(inputs).norm()


@pytest.mark.parametrize("correction", ["fold", "refit"])
def test_a_flattened_image_goes_channel_by_channel(correction: Any) -> None:
    model = linear_chain(10, 4)
    x = torch.randn(64, 3, 6, 6, dtype=torch.float64)
    method = {"2": hc.Interpolative(tolerance=0.5, correction=correction)}
    compiled = hc.compile(model, (x[:2],), method=method, calibration=[(x,)])
    width = len(compiled.plan.kept["2.weight"][0])
    assert 1 <= width < 6
    assert compiled.graph_module.state_dict()["5.weight"].shape == (5, 4 * width)
    assert compiled.plan.reshaping is not None
    (result,) = compiled.plan.reshaping.corrected
    assert result.layer == "5" and result.after < result.before
    wanted = (compiled(x) - model(x)).norm() / (model(x) - model[5].bias).norm()
    assert abs(float(wanted) - result.after) < 1e-6


def test_a_layers_error_is_the_one_that_was_predicted() -> None:
    """Without an error before it, nor a mean, of which the prediction knows nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 20, bias=False), nn.Linear(20, 5))
    x = torch.randn(500, 30)
    method = {"0": hc.Interpolative(tolerance=0.3)}
    compiled = hc.compile(model, (x[:2],), method=method, calibration=[(torch.cat([x, -x]),)])
    assert compiled.plan.reshaping is not None
    (result,) = compiled.plan.reshaping.corrected
    assert result.predicted is not None and 0.05 < result.predicted < 0.5
    assert result.after == pytest.approx(result.predicted, rel=0.01)
    told = f"measured (and predicted): 1 {result.after:.2%} ({result.predicted:.2%})"
    assert any(told in line for line in compiled.report().summary())


def test_a_smaller_tolerance_keeps_more() -> None:
    model, inputs = models.build("cnn")
    widths = []
    for tolerance in (0.6, 0.1, 0.0):
        plan = hc.compile(
            model, inputs(2), method=hc.Interpolative(tolerance=tolerance), calibration=[inputs(32)]
        ).plan
        widths.append(len(plan.kept["conv.weight"][0]))
    assert widths == sorted(widths) and widths[0] < widths[-1] == 32


class TwoBranches(nn.Module):
    """The same branch twice, but one of them hardly counts at the outputs."""

    def __init__(self, share: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.loud, self.quiet = (
            nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 4)) for _ in range(2)
        )
        self.quiet.load_state_dict(self.loud.state_dict())
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        return self.loud(x) + self.share * self.quiet(x.flip(1))


@pytest.mark.parametrize("share", [1.0, 1e-3])
def test_the_tolerance_is_of_the_outputs(share: float) -> None:
    """Both lose alike where both count alike; else the one that nobody would miss."""
    model = TwoBranches(share).double().eval()
    x = torch.randn(800, 6, dtype=torch.float64)
    compiled = hc.compile(model, (x[:2],), method=hc.Interpolative(0.1), calibration=[(x[:400],)])
    loud, quiet = (len(compiled.plan.kept[f"{name}.0.weight"][0]) for name in ("loud", "quiet"))
    error = (compiled(x[400:]) - model(x[400:])).detach().norm() / model(x[400:]).detach().norm()
    assert loud > 4 and error < 0.2
    assert quiet == 1 if share < 1 else abs(loud - quiet) <= 4


def test_a_group_that_is_partly_out_of_bounds_stays() -> None:
    model, inputs = models.build("cnn")
    for config in (hc.Interpolative(0.3), hc.MergeChannels(0.3)):
        method = {"*": config, "stem": None}
        made = hc.compile(model, inputs(2), method=method, calibration=[inputs(8)]).plan.reshaping
        assert made is not None
        reasons = {refusal.layer: str(refusal) for refusal in made.refused}
        assert reasons["conv"] == "it shares them with stem, which is to stay as it is"


def test_widths_are_rounded_up() -> None:
    model, inputs = models.build("cnn")
    widths = []
    for multiple in (1, 8):
        config = hc.Interpolative(tolerance=0.3, round_to=multiple)
        plan = hc.compile(model, inputs(2), method=config, calibration=[inputs(32)]).plan
        widths.append(len(plan.kept["conv.weight"][0]))
    assert widths[0] % 8 and widths[1] == -(-widths[0] // 8) * 8 < 32


@pytest.mark.parametrize(
    "name",
    [pytest.param("cnn", marks=pytest.mark.slow), "attention", pytest.param("tied", marks=pytest.mark.slow)],
)
def test_narrowed_and_encoded_in_one_file(name: str, tmp_path: Path) -> None:
    model, inputs = models.build(name)
    method = [hc.Interpolative(tolerance=0.3), hc.Codebook(bits=4)]
    compiled = hc.compile(model, inputs(2), method=method, calibration=[inputs(16)])
    compiled.export_onnx(tmp_path / "narrow.onnx")


def test_what_nothing_reads_has_its_reason() -> None:
    model, inputs = models.build("attention")
    plan = hc.compile(model, inputs(2), method=hc.Interpolative(tolerance=0.3), calibration=[inputs(16)]).plan
    assert plan.reshaping is not None and plan.reshaping.refused


def test_needs_data() -> None:
    model, inputs = models.build("cnn")
    with pytest.raises(hc.ConfigError, match="calibration"):
        hc.compile(model, inputs(2), method=hc.Interpolative())


@pytest.mark.parametrize(
    "arguments",
    [
        {"tolerance": 1},
        {"tolerance": -0.1},
        {"tolerance": True},
        {"tolerance": "0.1"},
        {"correction": "sum"},
        {"round_to": 0},
    ],
)
def test_what_cannot_mean_anything(arguments: dict[str, Any]) -> None:
    with pytest.raises(hc.ConfigError, match=rf"Interpolative\({next(iter(arguments))}="):
        hc.Interpolative(**arguments)
