"""Parameters that are read in parts: taken apart exactly, and told about as one."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import hashcompile as hc
from hashcompile.capture import Captured, capture
from hashcompile.core.graph import check, tensors
from hashcompile.core.kept import stacked
from hashcompile.passes.cleanup.unpack import unpack
from tests.channels.exact import EXACT, at_random, captured, difference, removal


class Cross(nn.Module):
    """Keys that are not the queries, and made by another layer."""

    def __init__(self, **more: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(6, 24), nn.Linear(6, 24)
        self.attention = nn.MultiheadAttention(24, 4, batch_first=True, **more)
        self.out = nn.Linear(24, 3)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor | None = None) -> Tensor:
        keys = self.key(keys)
        values = keys if values is None else values
        return self.out(self.attention(self.query(x), keys, values, need_weights=False)[0])


QUERIES, KEYS = torch.randn(2, 5, 6), torch.randn(2, 7, 6)
CASES = {
    "keys are values": (Cross, (QUERIES, KEYS), [24, 48]),
    "three parts": (Cross, (QUERIES, KEYS, torch.randn(2, 7, 24)), [24, 24, 24]),
    "biases alone": (partial(Cross, vdim=10), (QUERIES, KEYS, torch.randn(2, 7, 10)), None),
}


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_each_part_is_a_weight_of_its_own(case: str) -> None:
    make, inputs, rows = CASES[case]
    whole = captured(make(), *inputs)
    wanted, before = whole.graph(*whole.example), dict(tensors(whole.graph))
    assert unpack(whole.graph)
    check(whole.graph)
    assert difference(whole.graph(*whole.example), wanted) < EXACT
    now = dict(tensors(whole.graph))
    assert whole.graph.meta["parts"].keys() == before.keys() - now.keys()
    for name, parts in whole.graph.meta["parts"].items():
        assert torch.equal(torch.cat([now[part] for part in parts]), before[name])
        assert rows in (None, [len(now[part]) for part in parts])
    assert not unpack(whole.graph)
    assert removal(whole, partial(at_random, 0.6, 0)).error < EXACT


class Sliced(nn.Module):
    """One parameter, read as `run` says."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self.packed, self.run = nn.Parameter(torch.randn(8, 4)), run

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.packed[:3], self.packed[3:]
        y = functional.linear(x, first).sum(-1, keepdim=True) + functional.linear(x, second)
        match self.run:
            case "whole too":
                return y + functional.linear(x, self.packed)[..., :5]
            case "no weight":
                return y + second.sum()
            case "other places":
                return y + functional.linear(x, self.packed[1:6])
            case "not all of it":
                return functional.linear(x, self.packed[:3]) + functional.linear(x, self.packed[3:6])
            case "columns":
                return functional.linear(x[..., :2], self.packed[:, :2])
        return y


@pytest.mark.parametrize("run", ["whole too", "no weight", "other places", "not all of it", "columns"])
def test_what_is_read_otherwise_stays_whole(run: str) -> None:
    whole = capture(Sliced(run), (torch.randn(2, 4),))
    assert not unpack(whole.graph)
    assert dict(tensors(whole.graph)).keys() == {"packed"}


def test_slices_of_the_users_own() -> None:
    whole: Captured = capture(Sliced("in parts"), (torch.randn(2, 4),))
    assert unpack(whole.graph)
    assert {name: len(value) for name, value in tensors(whole.graph)} == {"packed.0": 3, "packed.1": 5}


class Decoder(nn.Module):
    """Two blocks with one attention."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Cross()
        self.second = copy.deepcopy(self.first)
        self.second.attention = self.first.attention

    def forward(self, x: Tensor, keys: Tensor) -> Tensor:
        return self.first(x, keys) + self.second(x, keys)


def test_what_is_left_is_told_of_the_parameter_that_the_model_has() -> None:
    model, inputs = Decoder().eval(), (QUERIES, KEYS)
    first = hc.compile(model, inputs, hc.PruneChannels(amount=0.5), verify=False)
    method = [hc.PruneChannels(amount=0.5), {"*in_proj_weight": hc.Codebook(bits=4)}]
    second = hc.compile(first.graph_module, inputs, method, verify=False)
    rows = [list(range(72))]
    for compiled, heads in ((first, 2), (second, 1)):
        kept = compiled.plan.kept
        assert model.state_dict().keys() <= kept.keys()
        query, key = kept["first.attention.in_proj_weight.0"], kept["first.attention.in_proj_weight.1"]
        rows.append([*query[0].tolist(), *(24 + key[0]).tolist()])
        assert len(rows[-1]) == 3 * 6 * heads and set(rows[-1]) < set(rows[-2])
        for block in ("first", "second"):
            whole = kept[f"{block}.attention.in_proj_weight"]
            assert whole[0].tolist() == kept[f"{block}.attention.in_proj_bias"][0].tolist() == rows[-1]
            assert whole[1].tolist() == sorted({*query[1].tolist(), *key[1].tolist()})
    coded = [each for each in second.report() if "in_proj_weight" in each.name]
    assert [each.shape for each in coded] == [(6, 6), (12, 6)]
    assert [each.dense_shape for each in coded] == [(24, 24), (48, 24)]
    assert not any(each.reason and "read by" in each.reason for each in coded)


def test_parts_that_a_file_only_claims_are_refused() -> None:
    told = {
        "kept": {"a.0": {"0": [1]}, "a.1": {"3": [0]}},
        "shapes": {"a.0": [2, 2], "a.1": [2, 2], "b": [2]},
        "before": {"parameters": 8, "macs": 0},
        "after": {"parameters": 6, "macs": 0},
        "methods": [],
        "refused": [],
    }
    assert hc.Reshaping.restore({**told, "parts": {"a": ["a.0"]}}).of_whole_tensors["a"].keys() == {0}
    for parts, error in ((["a.2"], KeyError), (["b"], KeyError), (["a.0", "a.1"], ValueError)):
        with pytest.raises(error):
            hc.Reshaping.restore({**told, "parts": {"a": parts}})


def test_rows_follow_each_other_and_columns_are_those_of_any_part() -> None:
    first, second = {0: torch.tensor([1]), 1: torch.tensor([0, 2])}, {1: torch.tensor([2])}
    found = stacked([(first, (3, 4)), (second, (2, 4))])
    assert {dim: each.tolist() for dim, each in found.items()} == {0: [1, 3, 4], 1: [0, 2]}
    assert stacked([({}, (3,)), ({}, (2,))]) == {}
