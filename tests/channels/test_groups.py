"""Groups of small networks: what belongs together, and what is refused why."""

from __future__ import annotations

import torch
from torch import nn

from hashcompile.capture import capture
from hashcompile.passes.channels import Role, find_groups
from tests import models
from tests.channels.adversarial import CUT
from tests.channels.adversarial.network import Net, parameter, tokens


def test_two_layers_and_their_norm() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 3)).eval()
    whole = capture(net, (torch.randn(2, 3, 7, 7),))
    channels = find_groups(whole.graph, whole.example)
    (group,) = channels.groups
    assert (group.layers, group.count) == (("0",), 8)
    assert {(axis.parameter, axis.dim, axis.role) for axis in group.axes} == {
        ("0.weight", 0, Role.PRODUCER),
        ("0.bias", 0, Role.FOLLOWER),
        *((f"1.{name}", 0, Role.FOLLOWER) for name in ("weight", "bias", "running_mean", "running_var")),
        ("3.weight", 1, Role.CONSUMER),
    }
    assert all(axis.indices(unit).tolist() == [unit] for axis in group.axes for unit in range(8))
    (refusal,) = channels.refused
    assert (refusal.layer, refusal.channels, refusal.of) == ("3", 5, 5)
    assert refusal.reason == "it leaves the model as an output"


def test_a_residual_group() -> None:
    model, inputs = models.build("cnn")
    whole = capture(model, inputs(2))
    (group,) = find_groups(whole.graph, whole.example).groups
    assert group.layers == ("stem", "conv")
    assert [axis.parameter for axis in group.of_role(Role.CONSUMER)] == ["conv.weight", "head.weight"]


def test_heads_and_hidden_width() -> None:
    model, inputs = models.build("attention")
    whole = capture(model, inputs(2))
    channels = find_groups(whole.graph, whole.example)
    assert [(group.layers, group.count) for group in channels.groups] == [(("qkv",), 4), (("up",), 64)]
    (rows,) = (axis for axis in channels.groups[0].axes if axis.parameter == "qkv.weight")
    assert rows.indices(1).tolist() == [i for part in range(3) for i in range(32 * part + 8, 32 * part + 16)]
    assert {refusal.layer: refusal.reason for refusal in channels.refused} == {
        "out": "it leaves the model as an output",
        "down": "it leaves the model as an output",
    }


def test_heads_go_with_their_matrices_and_experts_with_all_others() -> None:
    units = {}
    for name in ("a_matrix_for_each_head", "experts_that_a_gate_weighs"):
        model, inputs = CUT[name]()
        whole = capture(model.eval(), inputs)
        units[name] = [group.count for group in find_groups(whole.graph, whole.example).groups]
    assert units == {"a_matrix_for_each_head": [4], "experts_that_a_gate_weighs": [8, 12]}


def test_the_reason_is_what_made_the_channels_one() -> None:
    """Not the layer that reads learnt positions before, and joins the places of each channel."""

    def run(m, x):
        x = m.a(x) + m.position
        return m.out(m.norm(x + m.b(x)))

    layers = {"a": nn.Linear(7, 8), "b": nn.Linear(8, 8), "norm": nn.LayerNorm(8), "out": nn.Linear(8, 3)}
    whole = capture(Net(run, **layers, position=parameter(5, 8)).eval(), (tokens(7),))
    reasons = {each.layer: each.reason for each in find_groups(whole.graph, whole.example).refused}
    assert reasons["a"].startswith("layer_norm in norm") and reasons["b"] == reasons["a"]


def test_the_last_channel_of_a_tensor_stays() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    whole = capture(net, (torch.randn(2, 4),))
    keeper = find_groups(whole.graph, whole.example).keeper()
    assert [keeper.take(0, unit) for unit in (0, 0, 2, 1)] == [True, False, True, False]
    keeper.give_back(0, 2)
    assert keeper.removed[0].tolist() == [True, False, False]
    assert keeper.take(0, 1)
