"""PruneChannels in the pipeline: how much goes, what stays, what the plan, the artifact and the report say of it."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
from hashcompile.core.kept import Kept
from hashcompile.passes.channels import find_groups
from tests import models
from tests.channels.exact import sliced
from tests.channels.transformers import NETWORKS


def chain(*widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for into, out in itertools.pairwise(widths):
        layers += [nn.Linear(into, out), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


def follows(model: nn.Module, compiled: hc.CompiledModel) -> None:
    """Every tensor is that of `model`, at the kept indices."""
    given, kept = model.state_dict(), compiled.plan.kept
    for name, tensor in compiled.graph_module.state_dict().items():
        assert torch.equal(tensor, sliced(given[name], kept[name])), name


def test_the_smallest_go() -> None:
    model = chain(6, 10, 4)
    with torch.no_grad():
        model[0].weight *= torch.tensor([3.0, 1, 5, 2, 9, 8, 4, 7, 6, 10])[:, None]  # type: ignore[operator]
        model[0].weight.sign_()  # type: ignore[operator]
        model[0].weight *= torch.tensor([3.0, 1, 5, 2, 9, 8, 4, 7, 6, 10])[:, None]  # type: ignore[operator]
    compiled = hc.compile(model, (torch.randn(2, 6),), method=hc.PruneChannels(amount=0.3))
    kept = compiled.plan.kept
    assert kept["0.weight"][0].tolist() == [2, 4, 5, 6, 7, 8, 9]
    assert kept["0.weight"][1].tolist() == list(range(6))
    assert kept["2.weight"][1].tolist() == kept["0.bias"][0].tolist() == kept["0.weight"][0].tolist()
    assert compiled.graph_module.state_dict()["2.weight"].shape == (4, 7)
    follows(model, compiled)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("amount", [0, 0.25, 0.5, 0.97])
def test_how_much_goes(scope: Any, amount: float) -> None:
    model = chain(5, 24, 16, 3)
    method = hc.PruneChannels(amount=amount, importance="l1", scope=scope)
    kept = hc.compile(model, (torch.randn(2, 5),), method=method).plan.kept
    gone = [24 - len(kept["0.weight"][0]), 16 - len(kept["2.weight"][0])]
    assert max(gone[0] - 23, gone[1] - 15) <= 0
    if scope == "layer":
        assert gone == [min(23, round(24 * amount)), min(15, round(16 * amount))]
    else:
        assert sum(gone) == min(38, int(40 * amount + 0.5))


def test_global_compares_what_a_group_has_with_its_own_mean() -> None:
    model = chain(5, 8, 8, 3)
    with torch.no_grad():
        for layer, small in ((model[0], 4), (model[2], 0)):
            layer.weight.fill_(1)  # type: ignore[operator, union-attr]
            layer.weight[:small] *= 0.1  # type: ignore[index, union-attr]
        model[2].weight *= 0.01  # type: ignore[operator]
    method = hc.PruneChannels(amount=0.25, scope="global")
    kept = hc.compile(model, (torch.randn(2, 5),), method=method).plan.kept
    assert (len(kept["0.weight"][0]), len(kept["2.weight"][0])) == (4, 8)


@pytest.mark.parametrize("multiple", [2, 5, 8])
def test_widths_are_rounded_up(multiple: int) -> None:
    model = chain(5, 24, 16, 3)
    method = hc.PruneChannels(amount=0.6, round_to=multiple)
    kept = hc.compile(model, (torch.randn(2, 5),), method=method).plan.kept
    for name, width in (("0.weight", 24), ("2.weight", 16)):
        least = width - round(0.6 * width)
        assert len(kept[name][0]) == min(width, -(-least // multiple) * multiple)


class RelativePositions(nn.Module):
    """Eight heads of 4 entries, with an embedded bias for each; one gives one number a head for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(12, 96), nn.Linear(32, 5)
        self.bias, self.gate = nn.Embedding(11, 8), nn.Linear(12, 8)
        self.register_buffer("places", torch.arange(6)[:, None] - torch.arange(6) + 5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(-1, 6, 3, 8, 4).permute(2, 0, 3, 1, 4)
        scores = q @ k.mT + self.bias(self.places).permute(2, 0, 1)
        values = scores.softmax(-1) @ v * self.gate(x).sigmoid().transpose(1, 2)[..., None]
        return self.out(values.transpose(1, 2).flatten(2))


def test_the_number_of_heads_is_no_width() -> None:
    """Two heads of 4 entries are a multiple of 8, though a table and a gate then have two entries."""
    method = hc.PruneChannels(amount=0.75, round_to=8)
    kept = hc.compile(RelativePositions().eval(), (torch.randn(2, 6, 12),), method=method).plan.kept
    assert len(kept["bias.weight"][1]) == len(kept["gate.weight"][0]) == 2
    assert len(kept["qkv.weight"][0]) == 24 and len(kept["out.weight"][1]) == 8


def test_the_width_of_a_stream_counts_where_it_is_shuffled_together() -> None:
    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.small, self.large = nn.Conv2d(3, 64, 1), nn.Conv2d(3, 16, 2, 2)
            self.out = nn.Conv2d(16, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(nn.functional.pixel_shuffle(self.small(x[..., :2, :2]), 2) + self.large(x))

    kept = hc.compile(Shuffled(), (torch.randn(2, 3, 8, 8),), hc.PruneChannels(0.6, round_to=8)).plan.kept
    assert len(kept["large.weight"][0]) == 8 and len(kept["small.weight"][0]) == 32


def test_globs_say_what_may_be_cut() -> None:
    model, inputs = models.build("attention")
    plan = hc.compile(model, inputs(2), method={"*": hc.PruneChannels(amount=0.5), "qkv": None}).plan
    assert (len(plan.kept["qkv.weight"][0]), len(plan.kept["up.weight"][0])) == (96, 32)
    plan = hc.compile(model, inputs(2), method={"qkv": hc.PruneChannels(amount=0.5)}).plan
    assert (len(plan.kept["qkv.weight"][0]), len(plan.kept["up.weight"][0])) == (48, 64)
    with pytest.raises(hc.ConfigError, match="no layer matches 'qvk'"):
        hc.compile(model, inputs(2), method={"qvk": hc.PruneChannels()})


def test_a_group_that_is_partly_out_of_bounds_stays() -> None:
    model, inputs = models.build("cnn")
    compiled = hc.compile(model, inputs(2), method={"*": hc.PruneChannels(), "stem": None})
    assert compiled.plan.reshaping is not None
    reasons = {refusal.layer: str(refusal) for refusal in compiled.plan.reshaping.refused}
    assert reasons["conv"] == "it shares them with stem, which is to stay as it is"
    follows(model, compiled)


def test_one_stage_cannot_do_both() -> None:
    model, inputs = models.build("cnn")
    with pytest.raises(hc.ConfigError, match="give a list of two"):
        hc.compile(model, inputs(2), method={"stem": hc.PruneChannels(), "head": hc.Codebook()})


@pytest.mark.parametrize(
    "arguments",
    [
        {"amount": 1},
        {"amount": -0.1},
        {"amount": "half"},
        {"amount": True},
        {"importance": "l3"},
        {"scope": "all"},
        {"round_to": 0},
        {"attention": "none"},
        {"round_to": 2.0},
    ],
)
def test_what_cannot_mean_anything(arguments: dict[str, Any]) -> None:
    with pytest.raises(hc.ConfigError, match=rf"PruneChannels\({next(iter(arguments))}="):
        hc.PruneChannels(**arguments)


def lists(kept: Kept) -> dict[str, dict[int, list[int]]]:
    return {name: {dim: each.tolist() for dim, each in dims.items()} for name, dims in kept.items()}


def test_cut_and_encoded_in_one_call(tmp_path: Path) -> None:
    model, inputs = models.build("cnn")
    compiled = hc.compile(
        model,
        inputs(2),
        method=[hc.PruneChannels(amount=0.25), hc.Codebook(bits=4)],
        calibration=[inputs(32)],
    )
    assert {decision.layer.name for decision in compiled.plan.encoded} == {"stem", "conv", "head"}
    assert compiled.plan["conv"].layer.view.shape == (24, 24, 3, 3)
    assert max(compiled.errors.values()) < 0.2  # against what the cut graph computes, not the whole one
    compiled.export_onnx(tmp_path / "cut.onnx")
    compiled.save(tmp_path / "cut.hc")
    loaded = hc.load(tmp_path / "cut.hc")
    assert loaded.plan == compiled.plan
    assert lists(loaded.plan.kept) == lists(compiled.plan.kept)
    assert (
        hc.Plan.restore(json.loads(json.dumps(compiled.plan.describe()))).describe()
        == compiled.plan.describe()
    )
    x = inputs(5)
    assert torch.equal(loaded(*x), compiled(*x))


def test_the_report_tells_what_was_saved() -> None:
    model, inputs = models.build("cnn")
    report = hc.compile(model, inputs(2), method=hc.PruneChannels(amount=0.25)).report()
    text = str(report)
    assert report.reshaping is not None
    assert report.reshaping.before == hc.Size(sum(p.numel() for p in model.parameters()), 646400)
    assert report.reshaping.after.macs == 24 * 27 * 64 + 24 * 24 * 9 * 64 + 24 * 40
    assert "24 x 24 x 3 x 3 of 32 x 32 x 3 x 3" in text
    assert "kept whole, since it leaves the model as an output: head" in text
    state = model.state_dict()
    assert report.dense_nbytes == 4 * sum(t.numel() for n, t in state.items() if "num_batches" not in n)
    assert json.dumps(report.as_dict())


def test_again_after_training(tmp_path: Path) -> None:
    model, inputs = models.build("cnn")
    first = hc.compile(model, inputs(2), method=hc.PruneChannels(amount=0.25))
    graph = first.graph_module.train()
    optimizer = torch.optim.SGD(graph.parameters(), lr=1e-3)
    graph(*inputs(8)).square().mean().backward()
    optimizer.step()
    first.save(tmp_path / "first.hc")
    for source in (graph, hc.load(tmp_path / "first.hc").graph_module):
        second = hc.compile(source, inputs(2), method=[hc.PruneChannels(amount=0.25), hc.Codebook(bits=4)])
        kept, before = second.plan.kept, first.plan.kept
        assert len(kept["conv.weight"][0]) == 18
        assert set(kept["conv.weight"][0].tolist()) < set(before["conv.weight"][0].tolist())
        assert second.plan.reshaping is not None
        assert second.plan.reshaping.before.parameters == sum(p.numel() for p in model.parameters())


def test_a_tied_weight_is_told_of_under_all_its_names() -> None:
    model, inputs = models.build("tied")
    compiled = hc.compile(model, inputs(2), method=hc.PruneChannels(amount=0.25))
    kept = compiled.plan.kept
    assert kept["head.weight"][1].tolist() == kept["embed.weight"][1].tolist()


def test_every_parameter_and_buffer_has_its_entry(tmp_path: Path) -> None:
    """Those that are read, under all their names; those that nothing reads are whole."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Conv2d(3, 12, 1), nn.Conv2d(3, 12, 1), nn.Conv2d(12, 3, 1)
            self.norm = self.same_norm = nn.BatchNorm2d(12)
            self.spare = nn.Linear(12, 12)
            self.register_buffer("note", torch.zeros(12))

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.norm(self.a(x)).relu() * self.same_norm(self.b(x)))

    model, x = Net().eval(), torch.randn(2, 3, 4, 4)
    first = hc.compile(model, (x,), method=hc.PruneChannels(amount=0.5))
    first.save(tmp_path / "first.hc")
    second = hc.compile(
        hc.load(tmp_path / "first.hc").graph_module, (x,), method=hc.PruneChannels(amount=0.5)
    )
    for compiled, width in ((first, 6), (second, 3)):
        kept = compiled.plan.kept
        assert kept.keys() == model.state_dict().keys()
        assert kept["note"] == kept["spare.weight"] == kept["norm.num_batches_tracked"] == {}
        for norm in ("norm", "same_norm"):
            for name in ("weight", "bias", "running_mean", "running_var"):
                assert kept[f"{norm}.{name}"][0].tolist() == kept["a.weight"][0].tolist()
        assert len(kept["b.weight"][0]) == width
        follows(model, compiled)


def test_double_precision() -> None:
    model = chain(5, 24, 16, 3).double()
    x: tuple[Tensor] = (torch.randn(2, 5, dtype=torch.float64),)
    compiled = hc.compile(model, x, method=hc.PruneChannels(amount=0.5))
    assert compiled(*x).dtype is torch.float64
    follows(model, compiled)


@pytest.mark.parametrize(
    "name", ["gated_vit", *(pytest.param(name, marks=pytest.mark.slow) for name in ("vit", "swin"))]
)
def test_widths_of_heads(name: str, tmp_path: Path) -> None:
    """Queries and keys of all heads, and values, lose the same entries; the file agrees."""
    make, inputs = NETWORKS[name]
    model = make().eval()
    method = hc.PruneChannels(amount=0.5, attention="widths")
    compiled = hc.compile(model, (inputs,), method=[method, hc.Codebook(bits=4)], calibration=[(inputs,)])
    assert compiled.plan.reshaping is not None
    assert compiled.plan.reshaping.after.parameters < 0.8 * compiled.plan.reshaping.before.parameters
    compiled.export_onnx(tmp_path / "narrow.onnx")


def test_widths_of_heads_keep_their_number() -> None:
    make, inputs = NETWORKS["swin"]
    kept = hc.compile(
        make().eval(), (inputs,), method=hc.PruneChannels(amount=0.5, attention="widths")
    ).plan.kept
    rows = kept["stage1.0.attn.qkv.weight"][0].tolist()
    assert len(rows) == 24  # three times four heads of two entries
    assert [row % 4 for row in rows] == [row % 4 for row in rows[:2]] * 12
    assert len(kept["stage1.0.attn.table"][1]) == 4


def test_inputs_by_name_and_nested() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.out = nn.Linear(5, 12), nn.Linear(4, 12), nn.Linear(12, 3)

        def forward(self, pair: dict[str, Tensor], *, scale: Tensor) -> dict[str, Tensor]:
            return {"sum": self.out((self.left(pair["a"]) + self.right(pair["b"])).relu() * scale)}

    model = Named().eval()
    inputs = {"pair": {"a": torch.randn(2, 5), "b": torch.randn(2, 4)}, "scale": torch.randn(2, 1)}
    compiled = hc.compile(model, inputs, method=hc.PruneChannels(amount=0.5))
    assert len(compiled.plan.kept["left.weight"][0]) == 6
    assert compiled(**inputs)["sum"].shape == (2, 3)
    follows(model, compiled)


def test_sizes_that_are_fixed_and_sizes_that_are_not() -> None:
    model, inputs = models.build("attention")
    method = hc.PruneChannels(amount=0.5)
    fixed = hc.compile(model, inputs(1), method=method, dynamic_batch=False)
    assert fixed(*inputs(1)).shape == inputs(1)[0].shape
    length = torch.export.Dim("length", min=2, max=64)
    free = hc.compile(
        model, inputs(2), method=method, dynamic_shapes=({0: torch.export.Dim("batch"), 2: length},)
    )
    x = torch.randn(3, 2, 9, 32)
    assert free(x).shape == x.shape
    follows(model, free)


def test_what_is_encoded_already_stays() -> None:
    model, inputs = models.build("cnn")
    compiled = hc.compile(
        model, inputs(2), method=[{"conv": hc.Codebook(bits=4)}, hc.PruneChannels(amount=0.5)]
    )
    kept = compiled.plan.kept
    assert compiled.plan["conv"].layer.view.shape == (32, 32, 3, 3)
    assert len(kept["stem.weight"][0]) == 32
    assert compiled.plan.reshaping is not None
    reasons = {refusal.layer: refusal.reason for refusal in compiled.plan.reshaping.refused}
    assert re.fullmatch(
        r"the weight of conv2d in conv \(models\.py:\d+\) is encoded already", reasons["stem"]
    )


def test_a_wider_batch_than_is_needed_costs_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph is run for its shapes: on two samples, however many were given."""
    model, inputs = models.build("cnn")
    seen = []
    real = find_groups

    def looked_at(graph: Any, example: Any, inside_heads: bool = False) -> Any:
        seen.append(example[0].shape[0])
        return real(graph, example, inside_heads)

    monkeypatch.setattr("hashcompile.passes.prune.apply.find_groups", looked_at)
    hc.compile(model, inputs(64), method=hc.PruneChannels(amount=0.5))
    assert seen == [2]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(20, 8), nn.LSTM(8, 12, batch_first=True, bidirectional=True)
        self.up, self.out = nn.Linear(24, 16), nn.Linear(16, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.up(self.lstm(self.embed(ids))[0][:, -1]).relu())


def test_behind_a_recurrent_layer() -> None:
    """PyTorch has a float32 kernel for it that knows no symbolic size."""
    compiled = hc.compile(Recurrent(), (torch.zeros(2, 5, dtype=torch.long),), hc.PruneChannels(amount=0.5))
    kept = compiled.plan.kept
    assert len(kept["up.weight"][0]) == 8 and len(kept["embed.weight"][1]) == 8
    assert compiled(torch.zeros(3, 5, dtype=torch.long)).shape == (3, 3)
