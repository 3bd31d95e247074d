"""The plan: what a user's method means for each layer, and why a layer was left alone."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import hashcompile as hc
from hashcompile.core.encoded import encoded_weights

C2, C3, C4 = (hc.Codebook(bits=bits) for bits in (2, 3, 4))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3)
        self.blocks = nn.ModuleList([nn.Linear(32, 32) for _ in range(3)])
        self.head = nn.Linear(32, 64)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).mean((2, 3))
        for block in self.blocks:
            x = block(x).relu()
        return self.head(x)


NAMES = ["stem", "blocks.0", "blocks.1", "blocks.2", "head"]
X = (torch.ones(2, 3, 5, 5),)


def configs(method: Any) -> dict[str, Any]:
    """What became of each layer, by bits; and the graph agrees with the plan."""
    compiled = hc.compile(Net(), X, method=method)
    codes = encoded_weights(compiled.graph_module)
    found = {}
    for decision in compiled.plan:
        assert (decision.config is None) == (decision.reason is not None)
        assert (decision.layer.parameter in codes) == (decision.config is not None)
        if decision.config is not None:
            assert codes[decision.layer.parameter].bits == decision.config.bits
        found[decision.layer.name] = decision.config
    return found


def test_one_config_is_for_all_layers_in_execution_order() -> None:
    found = configs(C4)
    assert list(found) == NAMES
    assert set(found.values()) == {C4}


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        ({"*": C4, "head": C2}, [C4, C4, C4, C4, C2]),
        ({"head": C2, "*": C4}, [C4, C4, C4, C4, C4]),  # later entries win
        ({"*": C4, "blocks.*": C3, "blocks.1": None}, [C4, C3, None, C3, C4]),
        ({"blocks.1": None, "*": C4}, [C4, C4, C4, C4, C4]),
        ({"blocks.[02]": C2}, [None, C2, None, C2, None]),
        ({"*.weight": C4, "stem.weight": None}, [None, C4, C4, C4, C4]),  # a parameter's own name
        ([{"stem": C2}, {"head": C3}], [C2, None, None, None, C3]),
        ([{"blocks.*": C2}, C4], [C4, C2, C2, C2, C4]),  # a later stage sees what is left
    ],
)
def test_globs(method: Any, wanted: list[Any]) -> None:
    assert list(configs(method).values()) == wanted


def test_reasons_of_the_user() -> None:
    plan = hc.compile(Net(), X, method={"stem": C4, "head": C4, "h*": None}).plan
    assert plan["head"].reason == "excluded by 'h*'"
    assert plan["blocks.0"].reason == "no glob matches it"
    assert [d.layer.name for d in plan.encoded] == ["stem"]
    assert [d.layer.name for d in plan.refused] == NAMES[1:]
    assert "left alone: excluded by 'h*'" in str(plan)
    with pytest.raises(KeyError, match="heads"):
        plan["heads"]


@pytest.mark.parametrize(("glob", "near"), [("haed", "head"), ("block.1", "blocks.1"), ("zzz", "stem")])
def test_a_glob_that_matches_nothing(glob: str, near: str) -> None:
    with pytest.raises(hc.ConfigError, match=rf"no layer matches '{glob}'; did you mean .*'{near}'"):
        configs({"*": C4, glob: C2})


def test_a_stage_for_a_layer_that_is_encoded_already() -> None:
    with pytest.raises(hc.ConfigError, match=r"head.*(earlier|already)"):
        configs([C4, {"head": C2}])


@pytest.mark.parametrize(
    "method", [None, [], {}, {"head": None}, "codebook", 4, {"*": 4}, {3: C4}, [C4, None], hc.Codebook]
)
def test_what_is_no_method(method: Any) -> None:
    with pytest.raises(hc.ConfigError):
        hc.compile(Net(), X, method=method)


@pytest.mark.parametrize("bits", [0, 9, -1, True, "4", 4.0, None])
def test_bits_are_whole_numbers_from_1_to_8(bits: Any) -> None:
    with pytest.raises(hc.ConfigError, match="whole number from 1 to 8"):
        hc.Codebook(bits=bits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"granularity": "per_channel"}, "per_tensor"),
        ({"granularity": None}, "per_tensor"),
        ({"group_size": 32}, "needs granularity"),
        ({"granularity": "per_group"}, "multiple of 16"),
        ({"granularity": "per_group", "group_size": 0}, "multiple of 16"),
        ({"granularity": "per_group", "group_size": -16}, "multiple of 16"),
        ({"granularity": "per_group", "group_size": 24}, "multiple of 16"),
        ({"granularity": "per_group", "group_size": 16.0}, "multiple of 16"),
        ({"granularity": "per_group", "group_size": True}, "multiple of 16"),
        ({"granularity": "per_group", "group_size": "16"}, "multiple of 16"),
    ],
)
def test_group_size(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(hc.ConfigError, match=message):
        hc.Codebook(**arguments)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("size", [16, 32, 160])
def test_configs_that_mean_something(bits: int, size: int) -> None:
    config = hc.Codebook(bits, "per_group", size)
    assert (config.bits, config.group_size) == (bits, size)
    assert config == hc.Codebook(bits=bits, granularity="per_group", group_size=size)


def test_frozen() -> None:
    compiled = hc.compile(Net(), X)
    for record, field in [
        (C4, "bits"),
        (compiled.plan, "decisions"),
        (compiled.plan["head"], "config"),
        (compiled.plan["head"].layer, "name"),
        (compiled, "plan"),
    ]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, field, None)


class Functions(nn.Module):
    """One weight `w`, used as `use` says."""

    def __init__(self, use: Callable[[Tensor, Tensor], Tensor], *shape: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(x, self.w)


@pytest.mark.parametrize(
    ("use", "shape", "reason"),
    [
        (functional.linear, (2, 4), r"too small to gain: \d+ bytes encoded, 32 bytes dense"),
        (lambda x, w: functional.linear(x, w) + w.sum(), (64, 4), "also read by sum.*needs it dense"),
        (lambda x, w: functional.linear(x @ w, w, w[:, 0]), (4, 4), "also read by"),
        (lambda x, w: functional.conv1d(x[..., None], w) * w.sum(), (8, 4, 1), "also read by sum"),
        (
            lambda x, w: functional.conv1d(functional.conv_transpose1d(x[..., None], w), w),
            (4, 4, 1),
            "shared by conv and conv_transpose",
        ),
    ],
)
def test_refusals_carry_a_reason(use: Any, shape: tuple[int, ...], reason: str) -> None:
    model, x = Functions(use, *shape), torch.randn(3, 4)
    compiled = hc.compile(model, (x,))
    (decision,) = compiled.plan.refused
    assert decision.layer.name == "w"
    assert decision.reason is not None
    assert re.search(reason, decision.reason)
    assert not encoded_weights(compiled.graph_module)
    torch.testing.assert_close(compiled(x), model(x), rtol=0, atol=0)
    assert decision.reason in " ".join(str(compiled.report()).split())


@pytest.mark.parametrize("bits", range(1, 9))
def test_too_small_is_decided_by_bytes(bits: int) -> None:
    """The plan encodes exactly those layers that become smaller."""
    for rows in (1, 2, 4, 8, 16, 32, 64):
        model = nn.Sequential(nn.Linear(24, rows))
        compiled = hc.compile(model, (torch.ones(2, 24),), method=hc.Codebook(bits))
        codes = encoded_weights(compiled.graph_module)
        period = 32 // (bits & -bits)
        columns, padded = -(-24 // period) * period, -(-rows // 32) * 32
        size = padded * columns * bits // 8 + 4 * 2**bits + 4 * rows
        assert bool(codes) == (size < 4 * 24 * rows)
        assert all(code.nbytes == size for code in codes.values())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(64, 32)
        self.head = nn.Linear(32, 64, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embed(ids).mean(1))


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_tied_weight_is_encoded_once(calibrated: bool) -> None:
    ids = torch.arange(64).reshape(4, 16)
    compiled = hc.compile(Tied(), (ids,), calibration=[(ids,)] if calibrated else None)
    (decision,) = compiled.plan
    assert sorted(decision.layer.kinds) == ["embedding", "linear"]
    (code,) = encoded_weights(compiled.graph_module).values()
    assert compiled.report().nbytes == code.nbytes, "and counted once"


def test_describe_and_restore() -> None:
    plan = hc.compile(Net(), X, method={"*": hc.Codebook(3, "per_group", 16), "head": None}).plan
    text = json.dumps(plan.describe())
    assert hc.Plan.restore(json.loads(text)) == plan
    assert hc.Plan.restore(json.loads(text)).describe() == plan.describe()


def test_a_model_without_layers() -> None:
    compiled = hc.compile(nn.ReLU(), (torch.ones(2, 3),))
    assert len(compiled.plan) == 0 and compiled.report().nbytes == 0
    with pytest.raises(hc.ConfigError, match="no layer matches 'fc'"):
        hc.compile(nn.ReLU(), (torch.ones(2, 3),), method={"fc": C4})


class Everything(nn.Module):
    """Weights that are read in other ways than a layer reads its own."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(8, 256))
        self.mix = nn.Parameter(torch.randn(256, 256))
        self.small = nn.Parameter(torch.randn(2, 256))
        self.gain = nn.Parameter(torch.randn(256))
        self.attention = nn.MultiheadAttention(256, 4, batch_first=True)
        self.lstm = nn.LSTM(256, 64, batch_first=True)
        self.bag = nn.EmbeddingBag(50, 64)
        self.head = nn.Linear(64, 64)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        x = (x + self.position) @ self.mix * self.gain + self.small.sum(0)
        x = self.attention(x, memory, memory)[0]
        bag = self.bag(torch.zeros(3, 4, dtype=torch.long))
        return self.head(self.lstm(x)[0]) + bag.sum(0)


def test_weights_that_no_layer_consumes_are_listed() -> None:
    model = Everything()
    compiled = hc.compile(model, (torch.randn(2, 8, 256), torch.randn(2, 5, 256)), hc.Codebook(4))
    large = {name for name, p in model.named_parameters() if p.ndim > 1 and p.numel() >= 1024}
    parts = {"attention.in_proj_weight.0", "attention.in_proj_weight.1"}  # of queries; of keys and values
    named = {decision.layer.parameter for decision in compiled.plan}
    assert named == large - {"attention.in_proj_weight"} | parts
    for decision in compiled.plan.refused:
        told = r"read by \w+( in [\w.]+)? \(test_plan\.py:\d+\), for which there is no compressed form"
        assert re.search(told, str(decision.reason)), decision
    assert {"head", "attention.out_proj", *parts} <= {d.layer.name for d in compiled.plan.encoded}
    reasons = {d.layer.parameter: str(d.reason) for d in compiled.plan.refused}
    assert "lstm" in reasons["lstm.weight_ih_l0"] and "matmul" in reasons["mix"]
    assert {name for name, reason in reasons.items() if "nn.Embedding, and a sum or mean" in reason} == {
        "bag.weight"
    }
    report = compiled.report()
    assert report["mix"].nbytes == 4 * 256 * 256 and report["mix"].kind == "other"
    assert report.other_nbytes < 4 * 12 * 256 + 4096
    assert hc.Plan.restore(compiled.plan.describe()) == compiled.plan


def test_a_double_weight_that_is_left_alone_anyway_is_no_error() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(64, 64, dtype=torch.float64))
            self.fc = nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x) + self.table.sum(0).float()

    plan = hc.compile(Table(), (torch.randn(2, 64),)).plan
    assert [d.layer.name for d in plan.refused] == ["table"]


def test_a_second_code_for_all_layers_is_refused() -> None:
    """It would have nothing to do, and nobody would be told; where the first leaves a layer, the second has it."""
    with pytest.raises(hc.ConfigError, match=r"'\*' matches was already encoded .* hc.Sparse\(bits=...\)"):
        hc.compile(Net(), X, method=[hc.Sparse(0.9), C4])
    with pytest.raises(hc.ConfigError, match="already encoded"):
        hc.compile(Net(), X, method=[C4, hc.Sparse(0.9)])
    for structure in (hc.PruneChannels(0.3), hc.LowRank(rank=2), hc.Sampled(share=0.5)):
        with pytest.raises(hc.ConfigError, match=r"already encoded .* put structural stages first"):
            hc.compile(Net(), X, method=[C4, structure])
    compiled = hc.compile(Net(), X, method=[{"head": hc.Sparse(0.9)}, C4])
    kinds = {name: type(code).__name__ for name, code in encoded_weights(compiled.graph_module).items()}
    assert kinds.pop("head.weight") == "SparseValues"
    assert set(kinds.values()) == {"CodebookWeight"}


def test_a_graph_of_codes_is_not_compiled_again() -> None:
    """They would be spelled out as operators, and nothing be left to encode; a graph that was only cut is a model."""
    graph = hc.compile(Net(), X, method=hc.Sparse(0.9)).graph_module
    for method in (C4, {"head": C4}, hc.PruneChannels(0.3)):
        with pytest.raises(hc.ConfigError, match=r"compiled already, .* head\.weight.* in one list"):
            hc.compile(graph, X, method=method)
    with pytest.raises(hc.ConfigError, match="compiled already"):
        hc.compile(nn.Sequential(graph, nn.ReLU()), X)
    cut = hc.compile(Net(), X, method=hc.PruneChannels(0.3)).graph_module
    assert hc.compile(cut, X, method=C4).plan.encoded


@pytest.mark.parametrize("method", [C4, hc.Hashed(), hc.LowRank(rank=2), hc.Sparse(0.5, importance="wanda")])
def test_weights_whose_outputs_overflow_name_the_layer_behind_them(method: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))
    model[0].weight.data *= 1e30
    x = torch.randn(8, 32)
    with pytest.raises(
        hc.CalibrationError, match=r"layer 2: its inputs .* NaN or infinite: look for weights in front"
    ):
        hc.compile(model, (x,), method, [(x,)])
