"""Dropout outside of training leaves the graph; anything that does something stays."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hashcompile.passes.cleanup.inactive import drop_inactive


def traced(model: nn.Module) -> torch.fx.GraphModule:
    return torch.export.export(model, (torch.randn(2, 3, 4, 4),), strict=False).module()


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout2d, nn.AlphaDropout])
@pytest.mark.parametrize("inplace", [False, True])
def test_inactive_dropout_goes(kind, inplace):
    graph = traced(nn.Sequential(nn.Sigmoid(), kind(0.5, inplace=inplace), nn.ReLU()).eval())
    x = torch.randn(2, 3, 4, 4)
    wanted = graph(x)
    assert drop_inactive(graph)
    assert not any("dropout" in str(node.target) for node in graph.graph.nodes)
    torch.testing.assert_close(graph(x), wanted, rtol=0, atol=0)
    assert not drop_inactive(graph)


def test_dropout_that_trains_stays():
    graph = traced(nn.Sequential(nn.Dropout(0.5)).train())
    assert not drop_inactive(graph)
    assert any("dropout" in str(node.target) for node in graph.graph.nodes)


class Cast(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sigmoid().to(torch.float32) * 2


def test_assertions_about_types_go():
    graph = traced(Cast())
    x = torch.randn(2, 3, 4, 4)
    wanted = graph(x)
    assert any("_assert_tensor_metadata" in str(node.target) for node in graph.graph.nodes)
    assert drop_inactive(graph)
    assert not any("_assert_tensor_metadata" in str(node.target) for node in graph.graph.nodes)
    torch.testing.assert_close(graph(x), wanted, rtol=0, atol=0)
