"""Removal is exact: float64, two batch sizes, garbage in what went."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from hashcompile.capture import Captured
from hashcompile.passes.channels import Role, find_groups
from tests import models
from tests.channels import adversarial
from tests.channels.exact import EXACT, at_random, captured, removal


def built(make: adversarial.Make) -> Captured:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, inputs = make()
    return captured(model, *inputs)


def cut_again_and_again(whole: Captured, inside_heads: bool = False) -> float:
    """20, then 60, then 95% of what is left in every group: exact every time. The share of the parameters that went."""
    left = 1.0
    for seed, share in enumerate((0.2, 0.6, 0.95)):
        step = removal(whole, partial(at_random, share, seed), inside_heads)
        assert step.error < EXACT
        left *= 1 - step.lost
    return 1 - left


@pytest.mark.parametrize("name", models.ZOO)
def test_the_zoo(name: str) -> None:
    model, inputs = models.build(name)
    cut_again_and_again(captured(model, *inputs(2)))


@pytest.mark.parametrize("name", adversarial.CUT)
def test_what_can_go(name: str) -> None:
    assert cut_again_and_again(built(adversarial.CUT[name])) > 0.1


@pytest.mark.parametrize("name", adversarial.WHOLE)
def test_what_must_stay(name: str) -> None:
    whole = built(adversarial.WHOLE[name])
    channels = find_groups(whole.graph, whole.example)
    assert not channels.groups
    assert channels.refused and all(refusal.reason for refusal in channels.refused)


WITH_HEADS = """encoder_layer packed_heads heads_folded_into_the_batch grouped_queries grouped_queries_of_the_operator
    bias_of_relative_positions a_causal_mask"""


@pytest.mark.parametrize("name", WITH_HEADS.split())
def test_entries_of_all_heads(name: str) -> None:
    whole = built(adversarial.CUT[name])
    groups = find_groups(whole.graph, whole.example, inside_heads=True).groups
    assert any(group.of_role(Role.FACTOR) for group in groups)
    assert cut_again_and_again(whole, inside_heads=True) > 0.1


@pytest.mark.parametrize("name", ["cosine_attention_with_a_scale_a_head", "rotary_positions"])
def test_keys_that_cannot_be_cut_by_themselves(name: str) -> None:
    """Normed ones mix their entries; a table of angles is computed for all of them. Values can go."""
    whole = built(adversarial.CUT[name])
    channels = find_groups(whole.graph, whole.example, inside_heads=True)
    assert [group.layers for group in channels.groups] == [("v",)]
