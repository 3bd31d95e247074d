"""Learnt codebooks in a training loop: prepared, annealed, held, frozen, compiled; alone, in parts and in parallel."""

from __future__ import annotations

import copy
import gc
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import hashcompile as hc
from hashcompile.core.encoded import encoded_weights
from tests.models import build
from tests.oracle import relative, rounding, run, stock

By = Literal["soft", "straight-through"]
WAYS: tuple[By, ...] = ("soft", "straight-through")
LEARN = hc.Codebook(bits=2, learn=True)
STEPS = 10


def network() -> nn.Module:
    """Seeded; its last layer is too small for a code."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Conv2d(24, 32, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 9, 40),
        nn.Linear(40, 2),
    )


def batch(step: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(step)
    x = torch.randn(16, 3, 8, 8, generator=draw)
    return x, (x.mean((1, 2, 3)) > 0).long()


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), 3e-3)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.02, 0.9, nesterov=True, weight_decay=5e-4)


def loop(
    model: nn.Module, training: hc.CodebookTraining, optimizer: torch.optim.Optimizer, steps: range
) -> list[float]:
    losses = []
    for step in steps:
        x, y = batch(step)
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        training.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("compute", ["float", "int8"])
def test_from_the_model_to_the_file(by: By, compute: Any, tmp_path: Path) -> None:
    """What is evaluated while training, what is frozen, what is compiled, and what runs are one and the same."""
    model = network().train()
    training = hc.CodebookTraining(model, LEARN, steps=STEPS, by=by, compute=compute)
    assert set(training.weights) == {"0.weight", "3.weight", "6.weight"}
    assert "too small" in training.refused["7.weight"]
    before = [weight.stored().indices for weight in training.weights.values()]
    loop(model, training, adam(model), range(STEPS))
    assert all(weight.held for weight in training.weights.values())
    x = batch(99)[0]
    with torch.no_grad():
        wanted = model.eval()(x)
        early = hc.compile(model, (x[:2],), hc.Codebook(bits=2), [(x,)], compute=compute)  # needs no `freeze`
        training.freeze()
        assert not training.weights and torch.equal(model(x), wanted)
    moved = [model.get_submodule(f"{n}.parametrizations.weight.0") for n in (0, 3, 6)]
    assert any(not torch.equal(code.indices, old) for code, old in zip(moved, before, strict=True))
    for code in moved:
        assert all(len(row.unique()) <= 4 for row in code.rows().detach())
    compiled = hc.compile(model, (x[:2],), hc.Codebook(bits=2), [(x,)], compute=compute)
    codes: dict[str, Any] = encoded_weights(compiled.graph_module)
    others: dict[str, Any] = encoded_weights(early.graph_module)
    for name, code in zip(("0.weight", "3.weight", "6.weight"), moved, strict=True):
        for found in (codes[name], others[name]):
            assert torch.equal(found.indices, code.indices)
            assert torch.equal(found.codebook, code.codebook) and torch.equal(found.scale, code.scale)
        assert compiled.errors[name] == 0
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), wanted, rtol=1e-5, atol=1e-5)
        checks = compiled.export_onnx(tmp_path / "m.onnx")
        assert all(check.error <= check.tolerance for check in checks)
        assert relative(run(stock(tmp_path / "m.onnx"), (x,)), wanted) <= 2 * rounding(compiled)


@pytest.mark.parametrize("by", WAYS)
def test_assignments_learn(by: By) -> None:
    """A layer whose weights are of two values, but for their signs, is found again; tables alone cannot find it."""
    draw = torch.Generator().manual_seed(0)
    signs = torch.randn(64, 64, generator=draw).sign()
    near = signs * torch.rand(64, 64, generator=draw)
    flipped = torch.rand(64, 64, generator=draw) < 0.1
    inputs = torch.randn(512, 64, generator=draw)
    wanted = inputs @ signs.T

    def trained(prepare: Callable[[nn.Module], hc.CodebookTraining | None]) -> float:
        model = nn.Linear(64, 64, bias=False)
        model.weight.data = torch.where(flipped, -near, near)
        training = prepare(model)
        optimizer = torch.optim.Adam(model.parameters(), 0.03)
        for _ in range(150):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(inputs), wanted).backward()
            optimizer.step()
            if training:
                training.step()
        return relative(model.eval()(inputs), wanted)

    def learnt(model: nn.Module) -> hc.CodebookTraining:
        return hc.CodebookTraining(model, hc.Codebook(bits=1, learn=True), steps=150, by=by)

    def tables(model: nn.Module) -> None:
        hc.CodebookTraining(model, hc.Codebook(bits=1, learn=True), steps=1).freeze()

    assert trained(learnt) < 0.02 < 0.3 < trained(tables)


@pytest.mark.parametrize("stop", [3, 9])  # while assignments train, and when they are held
@pytest.mark.parametrize("make", [adam, sgd])
@pytest.mark.parametrize("by", WAYS)
def test_resumes_bit_by_bit(by: By, make: Callable[[nn.Module], torch.optim.Optimizer], stop: int) -> None:
    def prepared() -> tuple[nn.Module, hc.CodebookTraining, torch.optim.Optimizer]:
        model = network().train()
        training = hc.CodebookTraining(model, LEARN, steps=STEPS, by=by)
        return model, training, make(model)

    whole = prepared()
    losses = loop(*whole, range(STEPS))
    first = prepared()
    assert loop(*first, range(stop)) == losses[:stop]
    file = io.BytesIO()
    torch.save([each.state_dict() for each in first], file)
    file.seek(0)
    second = prepared()
    for each, state in zip(reversed(second), reversed(torch.load(file)), strict=True):  # in any order
        each.load_state_dict(state)
    assert loop(*second, range(stop, STEPS)) == losses[stop:]
    for name, value in whole[0].state_dict().items():
        assert torch.equal(second[0].state_dict()[name], value), name


def test_a_checkpoint_keeps_what_is_held() -> None:
    """Entries are those that were held, not those nearest to latent weights that momentum has moved since."""
    models = network().eval(), network().eval()
    training = [hc.CodebookTraining(model, LEARN, steps=1, hold=1.0) for model in models]
    for weight in training[0].weights.values():
        weight.latent.data.neg_()
    models[1].load_state_dict(models[0].state_dict())
    training[1].load_state_dict(training[0].state_dict())
    x = batch(0)[0]
    assert torch.equal(models[1](x), models[0](x))
    training[1].freeze()
    assert torch.equal(models[1](x), models[0](x))


@pytest.mark.parametrize("by", WAYS)
def test_mixed_precision(by: By) -> None:
    model = network().train()
    training = hc.CodebookTraining(model, LEARN, steps=60, by=by)
    optimizer, scaler = adam(model), torch.amp.GradScaler("cpu", init_scale=2.0**10)
    losses = []
    for step in range(60):
        x, y = batch(step % 4)
        with torch.autocast("cpu", torch.bfloat16):
            output = model(x)
            loss = nn.functional.cross_entropy(output, y)
        assert output.dtype == torch.bfloat16
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        training.step()
        losses.append(loss.item())
    assert sum(losses[-4:]) < sum(losses[:4]) / 2
    assert all(p.dtype == torch.float32 and bool(torch.isfinite(p).all()) for p in model.parameters())


def in_parallel(rank: int, folder: str, by: By) -> None:
    """One of two processes, each with half of every batch."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    model = without_norm()
    training = hc.CodebookTraining(model, LEARN, steps=STEPS, by=by)
    wrapped = DistributedDataParallel(model)
    optimizer = sgd(wrapped)
    for step in range(STEPS):
        x, y = batch(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(wrapped(x[rank::2]), y[rank::2]).backward()
        optimizer.step()
        training.step()
    torch.save(model.state_dict(), f"{folder}/{rank}.pt")
    # The reducer first: as the group's last owner it would join, with the GIL, a thread that waits for the GIL.
    del wrapped
    gc.collect()
    torch.distributed.destroy_process_group()


def without_norm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.ReLU(), nn.Linear(64, 32), nn.Linear(32, 2))


@pytest.mark.parametrize("by", WAYS)
def test_two_processes(by: By, tmp_path: Path) -> None:
    """The same model in both, and that of one process with whole batches."""
    torch.multiprocessing.spawn(in_parallel, (str(tmp_path), by), nprocs=2, daemon=True)  # dies with us
    mine, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    model = without_norm()
    training = hc.CodebookTraining(model, LEARN, steps=STEPS, by=by)
    loop(model, training, sgd(model), range(STEPS))
    for name, value in model.state_dict().items():
        assert torch.equal(mine[name], other[name]), name
        if name.endswith("indices"):  # gradients are summed in another order: one that is halfway may differ
            assert float((mine[name] != value).double().mean()) < 0.01
        else:
            torch.testing.assert_close(mine[name], value, rtol=1e-3, atol=1e-4)


def test_the_graph_of_a_compiled_model(tmp_path: Path) -> None:
    """Begins at what was fitted to data; exports and saves what is stored, whatever the mode and the temperature."""
    model, inputs = build("cnn")
    x = inputs(64)[0]
    plain = hc.compile(model, inputs(4), hc.Codebook(2), [(x,)])
    compiled = hc.compile(model, inputs(4), LEARN, [(x,)])
    graph = compiled.graph_module
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), plain(x), rtol=1e-4, atol=1e-4)
        wanted = model(x)
    assert "learnt" in str(compiled.plan["conv"]) + str(compiled.report())
    training = hc.CodebookTraining(graph, steps=40)
    graph.train()
    optimizer = torch.optim.Adam(graph.parameters(), 2e-3)
    losses = []
    for step in range(40):
        loss = nn.functional.mse_loss(graph(x), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        training.step()
        losses.append(float(loss))
        if step == 20:
            checks = compiled.export_onnx(tmp_path / "early.onnx")
            assert all(check.error <= check.tolerance for check in checks)
            compiled.save(tmp_path / "early.hc")
            graph.eval()
            with torch.no_grad():
                early = compiled(x)
                assert torch.equal(hc.load(tmp_path / "early.hc")(x), early)
                assert relative(run(stock(tmp_path / "early.onnx"), (x,)), early) <= 2 * rounding(compiled)
            graph.train()
    assert losses[-1] < losses[0]
    graph.eval()
    with torch.no_grad():
        before = compiled(x)
        training.freeze()
        assert torch.equal(compiled(x), before)
    assert all(type(code).__name__ == "CodebookWeight" for code in encoded_weights(graph).values())
    compiled.save(tmp_path / "m.hc")
    compiled.export_onnx(tmp_path / "m.onnx")
    assert torch.equal(hc.load(tmp_path / "m.hc")(x), before)


def test_tied_weights_have_one_code() -> None:
    model, inputs = build("tied")
    training = hc.CodebookTraining(model, {"*": LEARN, "fc": None}, steps=2)
    assert len(training.weights) == 1
    model(*inputs(4)).square().mean().backward()
    training.freeze()
    wanted = model(*inputs(4)).detach()
    compiled = hc.compile(model, inputs(4), {"*": hc.Codebook(2), "fc": None}, compute="float")
    assert len(compiled.plan.encoded) == 1 and compiled.plan.encoded[0].layer.tied
    with torch.no_grad():
        torch.testing.assert_close(compiled(*inputs(4)), wanted, rtol=1e-5, atol=1e-5)


def test_compiling_leaves_the_model_as_it_is() -> None:
    """Its deep copy shares the class in which torch keeps a parametrized weight; others may be there as well."""
    model = network().eval()
    nn.utils.parametrizations.weight_norm(model[7], "weight")
    torch.nn.utils.parametrize.register_parametrization(model[6], "bias", nn.ReLU())
    hc.CodebookTraining(model, {"6": LEARN}, steps=2).freeze()
    twin, x = copy.deepcopy(model), batch(0)[0]
    wanted, names = model(x), list(model.state_dict())
    compiled = hc.compile(model, (x[:2],), {"6": hc.Codebook(2)}, compute="float")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), wanted, rtol=1e-5, atol=1e-5)
    assert compiled.errors == {"6.weight": 0.0}
    assert list(model.state_dict()) == names
    assert torch.equal(model(x), wanted) and torch.equal(twin(x), wanted)


@pytest.mark.parametrize(
    "method",
    [
        hc.Codebook(bits=3),
        hc.Codebook(bits=2, granularity="per_group", group_size=16),
        hc.Int8(),
        [hc.PruneChannels(amount=0.5), hc.Codebook(bits=2)],
    ],
    ids=str,
)
def test_what_a_learnt_code_does_not_fit_is_fitted(method: Any) -> None:
    model = network().eval()
    hc.CodebookTraining(model, {"3": LEARN}, steps=1).freeze()
    compiled = hc.compile(model, (batch(0)[0],), method, compute="float", progress=False)
    assert len(compiled.plan.encoded) >= 3
    quality = compiled.quality
    assert quality is not None and quality.relative_error > 0


def test_learns_on_after_compiling() -> None:
    model = network().eval()
    hc.CodebookTraining(model, LEARN, steps=STEPS)
    graph = hc.compile(model, (batch(0)[0],), LEARN).graph_module
    with torch.no_grad():
        torch.testing.assert_close(graph(batch(0)[0]), model(batch(0)[0]), rtol=1e-4, atol=1e-4)
    assert len(hc.CodebookTraining(graph, steps=3).weights) == 3


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"steps": 0}, "at least 1"),
        ({"steps": True}, "at least 1"),
        ({"by": "magic"}, "straight-through"),
        ({"temperature": (0.1, 1.0)}, "fall"),
        ({"temperature": (1.0, 0.0)}, "above 0"),
        ({"temperature": 1.0}, "two finite numbers"),
        ({"hold": 1.5}, "from 0 to 1"),
        ({"method": None}, "learn=True"),
        ({"method": hc.Codebook(bits=2)}, "learn=True"),
        ({"method": hc.Int8()}, "learn=True"),
        ({"method": {"nothing": LEARN}}, "no layer matches"),
        ({"method": {"7": LEARN}}, "too small"),
        ({"compute": "int4"}, "bf16"),
    ],
)
def test_refused(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(hc.ConfigError, match=word):
        hc.CodebookTraining(network(), **({"method": LEARN, "steps": 5} | arguments))


def test_refused_config() -> None:
    with pytest.raises(hc.ConfigError, match="True or False"):
        hc.Codebook(learn="soft")  # type: ignore[arg-type]


def test_refused_weights() -> None:
    model = network()
    with torch.no_grad():
        model[3].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(hc.WeightError, match=r"layer 3: .*NaN"):
        hc.CodebookTraining(model, LEARN, steps=5)
    with pytest.raises(hc.WeightError, match=r"layer 0: .*float\(\)"):
        hc.CodebookTraining(network().bfloat16(), LEARN, steps=5)


def test_refused_state() -> None:
    given: dict[str, Any] = {"steps": 5, "by": "soft", "hold": 0.2, "temperature": (1.0, 0.02)}
    training = hc.CodebookTraining(network(), LEARN, **given)
    state = training.state_dict()
    for name, value in {
        "steps": 6,
        "by": "straight-through",
        "hold": 0.5,
        "temperature": (0.5, 0.1),
    }.items():
        with pytest.raises(hc.ConfigError, match=f"the state is that of {name}="):
            training.load_state_dict(state | {name: value})
    for name in state:
        part = {key: value for key, value in state.items() if key != name}
        with pytest.raises(hc.ConfigError, match=f"no entry '{name}'"):
            training.load_state_dict(part)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("what", ["latent", "codebook", "scale"])
def test_training_that_went_to_nan(what: str, value: float) -> None:
    model = network()
    training = hc.CodebookTraining(model, LEARN, steps=5)
    getattr(training.weights["3.weight"], what).data.view(-1)[1] = value
    for end in (training.step, training.freeze):
        with pytest.raises(hc.WeightError, match=rf"3\.weight: its {what} holds 1 NaN"):
            end()
    assert training.done == 0 and len(training.weights) == 3


def test_latent_weights_do_not_matter_once_held() -> None:
    training = hc.CodebookTraining(network(), LEARN, steps=5, hold=1.0)
    training.weights["3.weight"].latent.data.fill_(torch.nan)
    training.step()
    training.freeze()


def test_held_from_the_beginning() -> None:
    model = network().train()
    training = hc.CodebookTraining(model, LEARN, steps=STEPS, hold=1.0)
    before = {name: weight.stored() for name, weight in training.weights.items()}
    loop(model, training, adam(model), range(STEPS))
    for name, weight in training.weights.items():
        assert torch.equal(weight.stored().indices, before[name].indices)
        assert not torch.equal(weight.stored().codebook, before[name].codebook)


def test_freezing_early_and_often() -> None:
    model = network()
    training = hc.CodebookTraining(model, LEARN, steps=5)
    training.freeze()
    training.freeze()
    training.step()
    x = batch(0)[0]
    model(x).sum().backward()
    assert model.get_submodule("3.parametrizations.weight.0").codebook.grad is not None


def test_a_mixture_cools_until_it_is_held() -> None:
    """Geometrically, and only where the model trains; what is evaluated is the nearest entry all along."""
    model = network().train()
    training = hc.CodebookTraining(model, LEARN, steps=STEPS, temperature=(1.0, 0.01), hold=0.2)
    (weight, *_) = training.weights.values()
    found = []
    for _ in range(STEPS):
        found.append((weight.temperature, weight.softly, weight.held))
        training.step()
    wanted = [(0.01 ** (step / 8), step < 8, step >= 8) for step in range(STEPS)]
    for (temperature, softly, held), (cool, mixture, holds) in zip(found, wanted, strict=True):
        assert temperature == pytest.approx(cool if not holds else 0.01)
        assert (softly, held) == (mixture, holds)
    assert not training.weights or not model.eval()[0].parametrizations.weight[0].softly


def test_soft_and_straight_through_part_ways() -> None:
    ends = []
    for by in WAYS:
        model = network().train()
        training = hc.CodebookTraining(model, LEARN, steps=STEPS, by=by)
        loop(model, training, sgd(model), range(STEPS))
        ends.append(torch.cat([value.flatten() for value in model.state_dict().values()]))
    assert not torch.equal(*ends)


def test_a_mixture_wants_a_model_that_trains() -> None:
    model = network().eval()
    training = hc.CodebookTraining(model, LEARN, steps=2, hold=0.5)
    with pytest.raises(hc.ConfigError, match=r"evaluation mode.*call model\.train\(\)"):
        training.step()
    model.train()
    training.step()
    model.eval()
    training.step()  # held: nothing is a mixture any more
    straight = hc.CodebookTraining(network().eval(), LEARN, steps=2, by="straight-through")
    straight.step()


def test_a_compiled_graph_evaluates_what_it_will_store() -> None:
    x, _ = batch(0)
    compiled = hc.compile(network().eval(), (x,), LEARN)
    before = compiled(x)
    hc.CodebookTraining(compiled.graph_module, steps=STEPS)
    assert torch.equal(compiled(x), before), "it is in evaluation mode"
    assert not torch.equal(compiled.graph_module.train()(x), before)


class Packed(nn.Module):
    """Weights that no layer holds as such."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.lstm = nn.MultiheadAttention(32, 2), nn.LSTM(32, 32)
        self.normed, self.layer = nn.utils.parametrizations.weight_norm(nn.Linear(64, 64)), nn.Linear(64, 64)


def test_what_is_left_alone_has_a_reason() -> None:
    model = Packed()
    training = hc.CodebookTraining(model, LEARN, steps=STEPS)
    assert set(training.weights) == {"layer.weight", "attention.out_proj.weight"}
    left = {"attention.in_proj_weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "normed.weight"}
    assert set(training.refused) == left
    assert all("compiled.graph_module" in reason for reason in training.refused.values())
    with pytest.raises(hc.ConfigError, match=r"learns already, in 2 bits"):
        hc.CodebookTraining(model, hc.Codebook(bits=4, learn=True), steps=STEPS)
    again = hc.CodebookTraining(model, LEARN, steps=STEPS)
    assert again.refused["layer.weight"] == "its weight learns already" and len(again.weights) == 2


class Table(nn.Module):
    def __init__(self, bag: bool = False, **given: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table: nn.Module = (nn.EmbeddingBag if bag else nn.Embedding)(200, 32, **given)
        self.layer = nn.Linear(32, 64)

    def forward(self, ids: Tensor) -> Tensor:
        rows = self.table(ids)
        return self.layer(rows if rows.ndim == 2 else rows.mean(1))


IDS = torch.randint(0, 200, (16, 5), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", [LEARN, hc.Sparse(0.5, bits=2, learn=True)], ids=str)
@pytest.mark.parametrize("by", WAYS)
def test_an_embedding_with_sparse_gradients_trains_as_one_without(by: By, method: Any) -> None:
    found = []
    for sparse in (False, True):
        model = Table(sparse=sparse).train()
        training = hc.CodebookTraining(model, method, steps=4, by=by)
        optimizer = sgd(model)
        for _ in range(4):
            optimizer.zero_grad()
            (model(IDS) - 1).square().mean().backward()
            optimizer.step()
            training.step()
        training.freeze()
        (model(IDS) - 1).square().mean().backward()  # tables and scales still train
        found.append(dict(model.state_dict()))
    assert found[0].keys() == found[1].keys() and "table.parametrizations.weight.0.indices" in found[0]
    assert all(torch.equal(found[0][name], value) for name, value in found[1].items())


def test_an_embedding_that_rescales_its_rows_is_refused_before_anything_changes() -> None:
    """`compile` would refuse it once training is over; left alone it may train on."""
    model = Table(max_norm=1.0)
    with pytest.raises(hc.ConfigError, match=r"embedding table has max_norm=1.0.* set its max_norm to None"):
        hc.CodebookTraining(model, LEARN, steps=STEPS)
    assert not any(nn.utils.parametrize.is_parametrized(module) for module in model.modules())
    training = hc.CodebookTraining(model, {"*": LEARN, "table": None}, steps=STEPS)
    assert set(training.weights) == {"layer.weight"}


def test_a_bag_is_left_alone_with_what_to_do() -> None:
    training = hc.CodebookTraining(Table(bag=True), LEARN, steps=STEPS)
    assert set(training.weights) == {"layer.weight"} and set(training.refused) == {"table.weight"}
    assert "write it as nn.Embedding" in training.refused["table.weight"]


@pytest.mark.parametrize("done", ["x", -3, 2.0, None])
def test_a_count_that_is_none_is_refused(done: Any) -> None:
    training = hc.CodebookTraining(network(), LEARN, steps=STEPS)
    with pytest.raises(hc.ConfigError, match=r"done=.*wanted a whole number of steps"):
        training.load_state_dict({**training.state_dict(), "done": done})


def test_a_state_that_went_through_json() -> None:
    training = hc.CodebookTraining(network(), LEARN, steps=STEPS)
    training.step()
    other = hc.CodebookTraining(network(), LEARN, steps=STEPS)
    other.load_state_dict(json.loads(json.dumps(training.state_dict())))
    assert other.done == 1 and other.state_dict() == training.state_dict()
