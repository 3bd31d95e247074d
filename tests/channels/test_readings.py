"""Slices of units, and units as the layers see them that read them."""

from __future__ import annotations

import torch
from torch import nn

from hashcompile.capture import capture
from hashcompile.passes.channels import Axis, Role, find_groups
from hashcompile.passes.channels.carry_out import blocks_of, same_kind
from hashcompile.passes.channels.readings import readings
from hashcompile.passes.channels.slices import places, slices
from tests import models


def axis(*units: int) -> Axis:
    return Axis("weight", 1, Role.CONSUMER, torch.tensor(units))


def test_entries_of_units_in_their_order() -> None:
    assert places(axis(2, 0, -1, 2, 1, 0), 4).tolist() == [[1, 5], [4, -1], [0, 3], [-1, -1]]
    assert places(axis(-1, -1), 2).shape == (2, 0)
    tensor = torch.arange(12.0).view(2, 6)
    found = slices(tensor, axis(2, 0, -1, 2, 1, 0), 4)
    assert found.tolist() == [[1, 7, 5, 11], [4, 10, 0, 0], [0, 6, 3, 9], [0, 0, 0, 0]]


def test_units_of_one_kind_have_as_many_entries_everywhere() -> None:
    kinds = same_kind([axis(0, 1, 2, 2), axis(0, 1, 2, -1)], 3)
    assert kinds.tolist() == [[True, True, False], [True, True, False], [False, False, True]]


def test_moments_are_those_of_the_activations() -> None:
    """The stream of a residual network, where the convolution and the head read it."""
    model, inputs = models.build("cnn")
    captured = capture(model, inputs(2))
    groups = find_groups(captured.graph, captured.example).groups
    batches = [inputs(5), inputs(7)]
    (found,) = readings(captured.graph, groups, batches)
    seen: dict[str, list[torch.Tensor]] = {"conv.weight": [], "head.weight": []}
    model.conv.register_forward_hook(
        lambda _, args, __: seen["conv.weight"].append(args[0].movedim(1, 0).flatten(1))
    )  # type: ignore[operator, union-attr]
    model.head.register_forward_hook(lambda _, args, __: seen["head.weight"].append(args[0].T))  # type: ignore[operator, union-attr]
    with torch.no_grad():
        for batch in batches:
            model(*batch)
    assert [each.parameter for each in found] == ["conv.weight", "head.weight"]
    for each in found:
        units = torch.cat(seen[each.parameter], 1).double()
        assert each.count == units.shape[1]
        torch.testing.assert_close(each.gram, units @ units.T, rtol=1e-5, atol=1e-3)
        torch.testing.assert_close(each.mean, units.mean(1), rtol=1e-5, atol=1e-6)
        off = units - units.mean(1, keepdim=True)
        torch.testing.assert_close(each.centred, off @ off.T, rtol=1e-4, atol=1e-2)


def test_blocks_are_what_always_goes_together() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(36, 6), nn.ReLU(), nn.Linear(6, 2))
    captured = capture(model, (torch.randn(2, 3, 5, 5),))
    assert blocks_of(find_groups(captured.graph, captured.example)) == {"2.weight": 9, "4.weight": 1}


def test_in_a_grouped_convolution_every_group_is_a_sample() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 12, 1), nn.Conv2d(12, 6, 3, groups=3)).eval()
    x = torch.randn(4, 3, 5, 5)
    captured = capture(model, (x[:2],))
    groups = find_groups(captured.graph, captured.example).groups
    position = next(i for i, group in enumerate(groups) if group.count == 4)
    (found,) = readings(captured.graph, groups, [(x,)])[position]
    with torch.no_grad():
        channels = model[0](x).double().movedim(1, 0).reshape(3, 4, -1)
    units = channels.movedim(1, 0).reshape(4, -1)
    order = torch.tensor(
        [int((groups[position].of_role(Role.CONSUMER)[0].unit == u).nonzero()) for u in range(4)]
    )
    torch.testing.assert_close(found.gram, (units @ units.T)[order][:, order], rtol=1e-5, atol=1e-3)
