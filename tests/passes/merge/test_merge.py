"""MergeChannels in the pipeline: units that are one are merged exactly, streams and all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
from tests import models

F64 = {"rtol": 1e-9, "atol": 1e-9}


class Residual(nn.Module):
    """A stream that three convolutions with batch norms make, and three layers read."""

    def __init__(self, width: int, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.first, self.first_norm = nn.Conv2d(width, 7, 3, padding=1, bias=False), nn.BatchNorm2d(7)
        self.second, self.second_norm = nn.Conv2d(7, width, 1), nn.BatchNorm2d(width, affine=False)
        self.head, self.activation = nn.Linear(width, 5), activation()

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.stem_norm(self.stem(x)))
        y = self.activation(self.first_norm(self.first(x)))
        x = self.activation(x + self.second_norm(self.second(y)))
        return self.head(x.mean((2, 3)))


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return model.double().eval()


@torch.no_grad()
def twins(model: Residual, width: int, factor: float) -> None:
    """The second half of the stream's channels become `factor` times the first half, in ways that look different."""
    half = width // 2
    for conv, norm in ((model.stem, model.stem_norm), (model.second, model.second_norm)):
        gain = torch.rand(half, dtype=torch.float64) + 0.5
        conv.weight[half:] = conv.weight[:half] * gain.view(-1, 1, 1, 1)
        conv.bias[half:] = conv.bias[:half] * gain  # type: ignore[index]
        norm.running_mean[half:] = norm.running_mean[:half] * gain  # type: ignore[index]
        before = norm.running_var[:half] + norm.eps  # type: ignore[index, operator]
        if norm.affine:
            norm.running_var[half:] = 3 * before - norm.eps  # type: ignore[index]
            norm.weight[half:] = factor * norm.weight[:half] * (3**0.5) / gain
            norm.bias[half:] = factor * norm.bias[:half]
        else:
            norm.running_var[half:] = before * (gain / factor) ** 2 - norm.eps  # type: ignore[index]


def test_a_residual_stream_of_proportional_channels_loses_nothing() -> None:
    model = randomised(Residual(8))
    twins(model, 8, 2.5)  # type: ignore[arg-type]
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    method = {"*": hc.MergeChannels(amount=0.5, similarity=0.999, tables=40), "first": None}
    compiled = hc.compile(model, (x[:2],), method=method)
    assert sorted(unit % 4 for unit in compiled.plan.kept["stem.weight"][0].tolist()) == [0, 1, 2, 3]
    assert compiled.graph_module.state_dict()["head.weight"].shape == (5, 4)
    torch.testing.assert_close(compiled(x), model(x), **F64)


@pytest.mark.parametrize("hash_", ["simhash", "cross_polytope", "inner_product"])
@pytest.mark.parametrize("learnt", [False, True])
def test_every_hash_finds_twins(hash_: Any, learnt: bool) -> None:
    model = randomised(Residual(8))
    twins(model, 8, 1.0)  # type: ignore[arg-type]
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    config = hc.MergeChannels(amount=0.5, similarity=0.999, hash=hash_, learnt=learnt, bits=4, tables=64)
    compiled = hc.compile(model, (x[:2],), method={"*": config, "first": None})
    assert len(compiled.plan.kept["head.weight"][1]) == 4
    torch.testing.assert_close(compiled(x), model(x), **F64)


def test_without_homogeneity_factors_come_from_data() -> None:
    """tanh(2 w x) is no multiple of tanh(w x): equal twins merge exactly, columns summed; others by least squares."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double().eval()
    with torch.no_grad():
        model[0].weight[4:], model[0].bias[4:] = model[0].weight[:4], model[0].bias[:4]
    x = torch.randn(64, 6, dtype=torch.float64)
    config = hc.MergeChannels(amount=0.5, similarity=0.99, tables=64, correction=False)
    compiled = hc.compile(model, (x[:2],), method=config)
    torch.testing.assert_close(compiled(x), model(x), **F64)
    with torch.no_grad():
        model[0].weight[4:] *= 2
        model[0].bias[4:] *= 2
    errors = []
    for correction in (False, "sum", "fold"):
        config = hc.MergeChannels(0.5, 0.99, tables=64, correction=correction)  # type: ignore[arg-type]
        compiled = hc.compile(model, (x[:2],), method=config, calibration=[(x,)])
        errors.append(float((compiled(x) - model(x)).detach().norm()))
    assert errors[0] > 1.5 * max(errors[1:]) > 0


def test_activations_tell_what_weights_do_not() -> None:
    """Two units that differ where the data never is."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4)).double().eval()
    with torch.no_grad():
        model[0].weight[3:, :5] = model[0].weight[:3, :5]
        model[0].weight[3:, 5] = torch.tensor([5.0, -5.0, 2.0], dtype=torch.float64)
        model[0].bias[3:] = model[0].bias[:3]
    x = torch.randn(64, 6, dtype=torch.float64)
    x[:, 5] = 0
    for by, gone in (("weights", 0), ("activations", 3)):
        config = hc.MergeChannels(0.5, 0.999, by=by, tables=64)  # type: ignore[arg-type]
        compiled = hc.compile(model, (x[:2],), method=config, calibration=[(x,)])
        assert 6 - len(compiled.plan.kept["0.weight"][0]) == gone
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-6, atol=1e-6)
    with pytest.raises(hc.ConfigError, match="calibration"):
        hc.compile(model, (x[:2],), method=hc.MergeChannels(by="activations"))


def test_a_silent_batch_norm_may_come_to_stand_for_others() -> None:
    """gamma of the most active twin is zero: its bias alone speaks, and nothing is divided by it."""
    model = randomised(Residual(4))
    with torch.no_grad():
        model.stem_norm.weight.zero_()  # type: ignore[union-attr]
        model.second.weight.zero_()  # type: ignore[union-attr]
        model.second_norm.running_mean.fill_(-1.0)  # type: ignore[union-attr]
        model.second.bias.zero_()  # type: ignore[union-attr]
        model.second_norm.running_var.fill_(1.0)  # type: ignore[union-attr]
        model.stem_norm.bias.fill_(0.5)  # type: ignore[union-attr]
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    method = {"*": hc.MergeChannels(0.75, 0.99, tables=64), "first": None}
    compiled = hc.compile(model, (x[:2],), method=method)
    assert len(compiled.plan.kept["stem.weight"][0]) == 1
    torch.testing.assert_close(compiled(x), model(x), **F64)


@pytest.mark.parametrize(("groups", "multiplier"), [(2, 1), (12, 1), (12, 2)])
def test_twins_in_front_of_a_transposed_convolution(groups: int, multiplier: int) -> None:
    """With few groups each loses the same of its channels; else whole groups go, and twins have twin weights there."""
    torch.manual_seed(0)
    conv, up = nn.Conv2d(3, 12, 1), nn.ConvTranspose2d(12, 12 * multiplier, 2, stride=2, groups=groups)
    norm, head = nn.BatchNorm2d(12 * multiplier), nn.Conv2d(12 * multiplier, 4, 1)
    model = randomised(nn.Sequential(conv, nn.ReLU(), up, norm, nn.ReLU(), head))
    ones = torch.tensor([0, 1, 2, 6, 7, 8]) if groups == 2 else torch.arange(6)
    others, factor = (ones + 3, 2) if groups == 2 else (ones + 6, 1)
    with torch.no_grad():
        conv.weight[others], conv.bias[others] = factor * conv.weight[ones], factor * conv.bias[ones]  # type: ignore[index]
        if groups == 12:
            up.weight[others] = up.weight[ones]
            for each in (up.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var):
                each[6 * multiplier :] = each[: 6 * multiplier]  # type: ignore[index]
    x = torch.randn(8, 3, 4, 4).double()
    method = hc.MergeChannels(0.5, similarity=0.999, tables=64, correction=False)
    compiled = hc.compile(model, (x,), method=method)
    assert len(compiled.plan.kept["0.weight"][0]) == 6
    torch.testing.assert_close(compiled(x), model(x), **F64)


@pytest.mark.parametrize("multiple", [4, 5])
def test_widths_are_rounded_up(multiple: int) -> None:
    """What is not merged after all computes what it did."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 4)).double().eval()
    with torch.no_grad():
        model[0].weight[12:], model[0].bias[12:] = 2 * model[0].weight[:12], 2 * model[0].bias[:12]
    x = torch.randn(8, 6, dtype=torch.float64)
    config = hc.MergeChannels(0.5, 0.999, tables=64, round_to=multiple)
    compiled = hc.compile(model, (x[:2],), method=config)
    assert len(compiled.plan.kept["0.weight"][0]) == -(-12 // multiple) * multiple
    torch.testing.assert_close(compiled(x), model(x), **F64)


@pytest.mark.parametrize(
    "name",
    [pytest.param("cnn", marks=pytest.mark.slow), pytest.param("attention", marks=pytest.mark.slow), "mlp"],
)
def test_merged_and_encoded_in_one_file(name: str, tmp_path: Path) -> None:
    model, inputs = models.build(name)
    method = [hc.MergeChannels(amount=0.25), hc.Codebook(bits=4)]
    compiled = hc.compile(model, inputs(2), method=method, calibration=[inputs(16)])
    reshaping = compiled.plan.reshaping
    assert reshaping is not None and reshaping.after.parameters < reshaping.before.parameters
    compiled.export_onnx(tmp_path / "merged.onnx")


def test_merged_again_whenever_training_has_turned_the_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 4))
    x = torch.randn(256, 20)
    labels = (x @ torch.randn(20, 4)).argmax(1)
    graph, schedule, widths = model, hc.RehashSchedule(model, tolerance=0.05), [32]
    while len(widths) < 3:
        optimizer = torch.optim.Adam(graph.parameters(), 0.02)
        for _ in range(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(graph(x), labels).backward()
            optimizer.step()
            if schedule.due():
                break
        assert schedule.due()
        compiled = hc.compile(graph, (x[:2],), method=hc.MergeChannels(0.2, learnt=True), calibration=[(x,)])
        graph = compiled.graph_module.train()
        schedule = hc.RehashSchedule(graph, tolerance=0.05)
        assert not schedule.due()
        widths.append(len(compiled.plan.kept["0.weight"][0]))
    assert widths == [32, 26, 21]


def test_weights_of_nothing_and_constants(tmp_path: Path) -> None:
    for fill in (0.0, 1.0):
        model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
        nn.init.constant_(model[0].weight, fill)  # type: ignore[arg-type]
        x = torch.randn(4, 5)
        compiled = hc.compile(model, (x[:2],), method=hc.MergeChannels(0.5), calibration=[(x,)])
        assert bool(torch.isfinite(compiled(x)).all())
    model[0].weight.data[2, 3] = float("nan")  # type: ignore[union-attr, operator, index]
    with pytest.raises(hc.WeightError, match=r"0\.weight"):
        hc.compile(model, (x[:2],), method=hc.MergeChannels(0.5))


@pytest.mark.parametrize(
    "arguments",
    [
        {"amount": 1},
        {"amount": True},
        {"amount": float("nan")},
        {"similarity": 1.1},
        {"by": "names"},
        {"hash": "md5"},
        {"bits": 0},
        {"bits": 63},
        {"tables": 0},
        {"learnt": 1},
        {"correction": "all"},
        {"seed": 0.5},
        {"round_to": 0},
    ],
)
def test_what_cannot_mean_anything(arguments: dict[str, Any]) -> None:
    with pytest.raises(hc.ConfigError, match=rf"MergeChannels\({next(iter(arguments))}="):
        hc.MergeChannels(**arguments)
