"""What a unit is worth: what the layers that read it make of it."""

from __future__ import annotations

import torch
from torch import nn

from hashcompile.capture import capture
from hashcompile.passes.channels import find_groups
from hashcompile.passes.channels.readings import readings
from hashcompile.passes.merge.units import worths


def test_worth_is_the_share_of_the_outputs_that_a_unit_alone_would_make() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Linear(6, 5), "b": nn.Linear(5, 4), "c": nn.Linear(5, 3)})

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.m = model

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            z = self.m["a"](x).relu()
            return self.m["b"](z), self.m["c"](z * 2)

    x = torch.randn(50, 6)
    captured = capture(Net().eval(), (x[:2],))
    (group,) = find_groups(captured.graph, captured.example).groups
    (seen,) = readings(captured.graph, [group], [(x,)])
    with torch.no_grad():
        z = model["a"](x).relu().double()
        parts = []
        for name, factor in (("b", 1), ("c", 2)):
            made = [
                float((factor * z[:, u, None] * model[name].weight[:, u].double()).square().sum())
                for u in range(5)
            ]
            parts.append(torch.tensor(made, dtype=torch.float64) / sum(made))
    found = worths(captured.graph, group, seen, torch.ones(5, 1, dtype=torch.float64))
    torch.testing.assert_close(found, (parts[0] + parts[1]) / 2, rtol=1e-5, atol=1e-9)
    rows = torch.randn(5, 7, dtype=torch.float64)
    blind = [model[name].weight.detach().double().square().sum(0) * rows.square().sum(1) for name in "bc"]
    expected = (blind[0] / blind[0].sum() + blind[1] / blind[1].sum()) / 2
    torch.testing.assert_close(worths(captured.graph, group, (), rows), expected)
