"""Transposed convolutions and those of volumes, told as plain convolutions of images: the same values."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import fx, nn

from hashcompile.capture import capture
from hashcompile.core.layers import CONSUMERS, Kind
from hashcompile.lower.other_convolutions import plain_convolutions

CONVS = {
    1: (nn.Conv1d, nn.ConvTranspose1d),
    2: (nn.Conv2d, nn.ConvTranspose2d),
    3: (nn.Conv3d, nn.ConvTranspose3d),
}
SIZE = (6, 7, 5)


def rewritten(model: nn.Module, *shape: int) -> tuple[fx.GraphModule, torch.Tensor]:
    """With a batch of three, captured with two."""
    torch.manual_seed(0)
    captured = capture(model.eval(), (torch.randn(2, *shape),))
    graph = captured.graph
    plain_convolutions(graph)
    graph.recompile()
    return graph, torch.randn(3, *shape)


def kinds(graph: fx.GraphModule) -> set[tuple[Kind, int]]:
    """Of the layers that are left, each with the number of its spatial dims."""
    layers = [node for node in graph.graph.nodes if node.op == "call_function" and node.target in CONSUMERS]
    return {(CONSUMERS[node.target][0], node.meta["val"].ndim - 2) for node in layers}


def check(model: nn.Module, *shape: int) -> fx.GraphModule:
    graph, x = rewritten(model, *shape)
    with torch.no_grad():
        got = graph(x)
        wanted = model.double()(x.double())
        model.float()
    assert got.shape == wanted.shape
    # float32 sums of some hundred terms of unit size
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=2e-5)
    return graph


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 2, "stride": 2},
        {"kernel_size": 4, "stride": 2, "padding": 1},
        {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
        {"kernel_size": 3, "stride": 3, "output_padding": 2},
        {"kernel_size": 1, "stride": 3, "output_padding": 2, "bias": False},
        {"kernel_size": 2, "stride": 4, "output_padding": 1},
        {"kernel_size": 5, "stride": 1, "padding": 2},
        {"kernel_size": 3, "stride": 2, "dilation": 2, "padding": 2},
        {"kernel_size": 3, "stride": 2, "groups": 2, "bias": False},
    ],
    ids=str,
)
def test_transposed(dims: int, options: dict) -> None:
    graph = check(CONVS[dims][1](4, 6, **options), 4, *SIZE[:dims])
    assert kinds(graph) == {(Kind.CONV, min(dims, 2))}


@pytest.mark.parametrize(
    "layer", [nn.ConvTranspose2d(4, 4, 3, stride=2, groups=4), nn.Conv3d(4, 4, 3, groups=4)], ids=str
)
def test_one_channel_an_output_is_left_alone(layer: nn.Module) -> None:
    graph = check(layer, 4, *SIZE[: 3 if isinstance(layer, nn.Conv3d) else 2])
    assert kinds(graph) != {(Kind.CONV, 2)}


def test_a_dilated_one_stores_no_zeros() -> None:
    graph = check(nn.ConvTranspose2d(4, 6, 3, dilation=3, padding=1), 4, 6, 7)
    sizes = [value.numel() for name, value in graph.named_buffers() if "plain" in name]
    assert sorted(sizes) == [6, 4 * 6 * 9]


def test_transposed_with_unequal_sides() -> None:
    layer = nn.ConvTranspose2d(3, 4, (2, 5), stride=(1, 3), padding=(0, 2), output_padding=(0, 1))
    check(layer, 3, 6, 7)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 1},
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "stride": 2, "padding": (0, 1, 2)},
        {"kernel_size": (2, 3, 1), "dilation": (2, 1, 1), "bias": False},
        {"kernel_size": (3, 2, 4), "padding": "same"},
        {"kernel_size": 3, "groups": 2, "padding": 1},
        {"kernel_size": 3, "stride": 2, "groups": 2, "bias": False},
    ],
    ids=str,
)
def test_volumes(options: dict) -> None:
    graph = check(nn.Conv3d(4, 8, **options), 4, *SIZE)
    assert kinds(graph) == {(Kind.CONV, 2)}


def test_one_behind_the_other() -> None:
    model = nn.Sequential(nn.Conv3d(2, 4, 3), nn.ReLU(), nn.ConvTranspose3d(4, 2, 2, stride=2), nn.Sigmoid())
    check(model, 2, *SIZE)


class Tied(nn.Module):
    """A weight that two layers read, and one that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ConvTranspose2d(3, 3, 2, stride=2)

    def forward(self, x):
        once = nn.functional.conv_transpose2d(self.layer(x), self.layer.weight, stride=1)
        return nn.functional.conv_transpose2d(once, self.layer.weight * 2)


def test_what_is_not_constant_stays() -> None:
    graph = check(Tied(), 3, 4, 5)
    assert kinds(graph) == {(Kind.CONV, 2), (Kind.CONV_TRANSPOSE, 2)}


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), list(itertools.product((1, 2, 5), (1, 2, 3), (1, 2)))
)
def test_every_phase(kernel: int, stride: int, dilation: int) -> None:
    check(nn.ConvTranspose1d(2, 3, kernel, stride=stride, dilation=dilation), 2, 5)
