"""Importances, automatic amounts and corrections in the pipeline."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
from hashcompile.capture import capture
from hashcompile.core.layers import attribute
from hashcompile.passes.channels import Role, find_groups
from hashcompile.passes.prune.importance import IMPORTANCES
from hashcompile.passes.prune.slopes import changes
from tests import models

EVERYWHERE = ("l2", "activation", "taylor")  # one of each kind of data that an importance needs


@pytest.mark.parametrize(
    ("importance", "name"),
    [
        pytest.param(each, name, marks=() if name == "cnn" or each in EVERYWHERE else pytest.mark.slow)
        for each in IMPORTANCES
        for name in ("cnn", "attention", "tied")
    ],
)
def test_every_importance_prunes_every_model(importance: str, name: str) -> None:
    model, inputs = models.build(name)
    method = hc.PruneChannels(amount=0.25, importance=importance)
    compiled = hc.compile(model, inputs(2), method=method, calibration=[inputs(8)])
    assert compiled.plan.reshaping is not None
    assert compiled.plan.reshaping.after.parameters < compiled.plan.reshaping.before.parameters
    if IMPORTANCES[importance].needs in ("energies", "changes"):
        with pytest.raises(hc.ConfigError, match="calibration"):
            hc.compile(model, inputs(2), method=method)


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_where_no_channel_can_go_there_are_reasons(importance: str) -> None:
    """And no error: there is nothing to look at, nor to take gradients of."""
    method = hc.PruneChannels(amount=0.5, importance=importance)
    compiled = hc.compile(nn.Linear(6, 3), (torch.randn(2, 6),), method, calibration=[(torch.randn(8, 6),)])
    assert compiled.plan.reshaping is not None
    (refusal,) = compiled.plan.reshaping.refused
    assert refusal.reason == "it leaves the model as an output"


def trained() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
    return model, torch.randn(40, 6)


def test_what_is_never_active_goes_first() -> None:
    model, x = trained()
    with torch.no_grad():
        model[0].bias[[2, 7, 9]] = -100  # type: ignore[index]
        model[0].weight[[2, 7, 9]] *= 10  # type: ignore[index]
    for importance in ("activation", "taylor"):
        method = hc.PruneChannels(amount=0.25, importance=importance)
        compiled = hc.compile(model, (x[:2],), method=method, calibration=[(x,)])
        assert set(range(12)) - set(compiled.plan.kept["0.weight"][0].tolist()) == {2, 7, 9}
        torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize("labelled", [False, True])
def test_taylor_is_the_derivative_of_scaling_a_unit(labelled: bool) -> None:
    model, x = trained()
    model = model.double()
    labels = torch.arange(40) % 3

    def loss(outputs: Tensor, batch: int) -> Tensor:
        return nn.functional.cross_entropy(outputs, labels[20 * batch : 20 * batch + 20])

    captured = capture(model, (x[:2].double(),))
    group = find_groups(captured.graph, captured.example).groups[0]
    batches = [(half.double(),) for half in x.split(20)]
    (found,) = changes(captured.graph, [group], batches, loss if labelled else None)
    weight = attribute(captured.graph, group.of_role(Role.PRODUCER)[0].parameter)
    for number, batch in enumerate(batches):
        signs = torch.randint(0, 2, (20, 3), generator=torch.Generator().manual_seed(number)) * 2 - 1
        for unit in range(12):
            values = []
            for step in (1e-6, -1e-6):
                kept = weight.detach().clone()
                with torch.no_grad():
                    weight[unit] *= 1 + step
                    outputs = captured.graph(*batch)
                    values.append(float(loss(outputs, number) if labelled else (outputs * signs).sum()))
                    weight.copy_(kept)
            torch.testing.assert_close(
                float(found[number, unit]), (values[0] - values[1]) / 2e-6, rtol=1e-5, atol=1e-6
            )


def test_a_loss_that_is_none() -> None:
    model, x = trained()
    for wrong in (lambda y, _: y, lambda y, _: y.sum() * float("nan"), lambda y, _: 0.5):
        method = hc.PruneChannels(importance="taylor", loss=wrong)  # type: ignore[arg-type]
        with pytest.raises(hc.CalibrationError, match="batch 0: the loss is"):
            hc.compile(model, (x[:2],), method=method, calibration=[(x,)])


def test_nan_is_refused_by_name() -> None:
    model, x = trained()
    model[2].weight.data[0, 0] = float("nan")  # type: ignore[union-attr, index, operator]
    with pytest.raises(hc.WeightError, match=r"2\.weight"):
        hc.compile(model, (x[:2],), method=hc.PruneChannels())


@pytest.mark.parametrize("name", ["cnn", "attention"])
def test_a_correction_brings_outputs_closer(name: str) -> None:
    """On other data than it was made from."""
    model, inputs = models.build(name)
    torch.manual_seed(5)
    batches, fresh = [inputs(64), inputs(64)], inputs(64)
    wanted = model(*fresh)
    lost = []
    for how in (False, "fold", "refit"):
        method = hc.PruneChannels(0.4, correction=how)  # type: ignore[arg-type]
        compiled = hc.compile(model, inputs(2), method=method, calibration=batches)
        lost.append(float((compiled(*fresh) - wanted).norm() / wanted.norm()))
        assert compiled.plan.reshaping is not None
        assert all(each.after <= each.before * 1.001 for each in compiled.plan.reshaping.corrected)
    assert max(lost[1:]) < 0.9 * lost[0]


def test_a_correction_without_data_is_none() -> None:
    model, x = trained()
    pruned = [
        hc.compile(model, (x[:2],), method=hc.PruneChannels(0.4, correction=how)) for how in (False, True)
    ]
    assert torch.equal(pruned[0](x), pruned[1](x))


def test_auto_says_what_it_saw_and_remembers() -> None:
    model, x = trained()
    with torch.no_grad():
        model[0].weight[:6] *= 1e-3  # type: ignore[index]
    method = hc.PruneChannels(amount="auto")
    first = hc.compile(model, (x[:2],), method=method)
    assert first.plan.reshaping is not None
    (finding,) = first.plan.reshaping.findings
    assert (finding.layer, finding.units, finding.verdict) == ("0", 12, "compressible")
    assert 0 < finding.removed == 12 - len(first.plan.kept["0.weight"][0])
    assert "compressible" in str(first.report())
    graph = first.graph_module
    with torch.no_grad():  # as if training had put all into a few weights
        weight = attribute(graph, "0.weight")
        weight[1:] *= 1e-6
    second = hc.compile(graph, (x[:2],), method=method)
    assert second.plan.reshaping is not None
    assert [each.verdict for each in second.plan.reshaping.findings] == ["compressible", "underfitting"]
    assert second.plan.reshaping.findings[1].removed == 0
    with torch.no_grad():
        attribute(second.graph_module, "0.weight").fill_(1.0)
    third = hc.compile(second.graph_module, (x[:2],), method=method)
    assert third.plan.reshaping is not None
    assert third.plan.reshaping.findings[-1].verdict == "about to collapse"


def test_the_column_norm_rule_waits_for_training() -> None:
    model, x = trained()
    with torch.no_grad():
        model[0].weight[:3] *= 0.01  # type: ignore[index]
    method = hc.PruneChannels(amount="auto", rule="column_norm")
    first = hc.compile(model, (x[:2],), method=method)
    assert first.plan.kept["0.weight"][0].tolist() == list(range(3, 12))
    with torch.no_grad():
        attribute(first.graph_module, "0.weight")[:2] *= 0.01
    second = hc.compile(first.graph_module, (x[:2],), method=method)
    assert second.plan.reshaping is not None
    assert [each.verdict for each in second.plan.reshaping.findings] == ["compressible", "still training"]
    third = hc.compile(second.graph_module, (x[:2],), method=method)
    assert third.plan.reshaping is not None
    assert third.plan.reshaping.findings[-1].removed == 2


def test_the_column_norm_rule_does_not_take_pruning_for_training() -> None:
    """What goes of a layer's inputs makes its columns shorter, and is no reason to wait."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5)).eval()
    method = hc.PruneChannels(amount="auto", rule="column_norm")
    for _ in range(4):
        compiled = hc.compile(model, (torch.zeros(2, 20),), method=method)
        model = compiled.graph_module
    assert compiled.plan.reshaping is not None
    assert {each.verdict for each in compiled.plan.reshaping.findings} <= {"compressible", "even"}
    assert all(len(compiled.plan.kept[name][0]) < 50 for name in ("0.weight", "2.weight"))


class Chunked(nn.Module):
    """Attention whose packed projection is cut by chunk, and makes the hidden units of a feed-forward as well."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden = hidden
        self.packed, self.out = nn.Linear(32, 96 + hidden), nn.Linear(32 + hidden, 32)

    def forward(self, x: Tensor) -> Tensor:
        made, hidden = self.packed(x).split((96, self.hidden), -1)
        query, key, value = (part.unflatten(-1, (4, 8)).transpose(1, 2) for part in made.chunk(3, -1))
        y = nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return self.out(torch.cat([y, hidden.relu()], -1))


@pytest.mark.parametrize("importance", ["l1", "l2", "column_norm", "activation", "taylor"])
@pytest.mark.parametrize("how", [{"amount": 0.5}, {"amount": 0.5, "scope": "global"}])
def test_units_of_other_kinds_do_not_compete(how: dict[str, Any], importance: str) -> None:
    """Entries of queries and keys have two rows a head, of values one, and hidden units one row in all. Of each kind
    half goes, or, globally, some goes and some stays.
    """
    model, x = Chunked(64).eval(), torch.randn(8, 5, 32)
    for attention, sizes in (("widths", (32, 32, 32, 64)), ("heads", (96, 64))):
        method = hc.PruneChannels(importance=importance, attention=attention, **how)
        compiled = hc.compile(model, (x[:2],), method, [(x,)])
        parts = compiled.plan.kept["packed.weight"][0]
        edges = torch.tensor(sizes).cumsum(0)
        left = torch.bincount(torch.bucketize(parts, edges, right=True), minlength=len(sizes)) / torch.tensor(
            sizes
        )
        if "scope" in how:
            assert bool(((left > 0) & (left < 1)).all()), left
        else:
            assert left.tolist() == [0.5] * len(sizes)


@pytest.mark.parametrize(
    "arguments",
    [
        {"rule": "guess"},
        {"correction": "sum"},
        {"loss": 3, "importance": "taylor"},
        {"loss": len},
        {"scope": "global", "amount": "auto"},
    ],
)
def test_what_cannot_mean_anything(arguments: dict[str, Any]) -> None:
    with pytest.raises(hc.ConfigError, match=rf"PruneChannels\({next(iter(arguments))}="):
        hc.PruneChannels(**arguments)
