"""Norms, gates, activations, pooling."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tests.channels.adversarial.network import Net, conv, cut, image, parameter


@cut
def batch_norm_and_prelu():
    layers = {"a": conv(3, 8), "norm": nn.BatchNorm2d(8), "slope": nn.PReLU(8), "out": conv(8, 2)}
    return Net(lambda m, x: m.out(m.slope(m.norm(m.a(x)))), **layers), (image(),)


@cut
def batch_norm_without_parameters():
    layers = {"a": conv(3, 8), "norm": nn.BatchNorm2d(8, affine=False), "out": conv(8, 2)}
    return Net(lambda m, x: m.out(m.norm(m.a(x))), **layers), (image(),)


@cut
def group_norm():
    layers = {"a": conv(3, 12), "norm": nn.GroupNorm(4, 12), "out": conv(12, 2)}
    return Net(lambda m, x: m.out(m.norm(m.a(x)).relu()), **layers), (image(),)


@cut
def instance_norm():
    layers = {"a": conv(3, 8), "norm": nn.InstanceNorm2d(8, affine=True), "out": conv(8, 2)}
    return Net(lambda m, x: m.out(m.norm(m.a(x)).relu()), **layers), (image(),)


@cut
def squeeze_and_excite():
    def run(m, x):
        y = m.a(x)
        gate = m.up(m.down(functional.adaptive_avg_pool2d(y, 1)).relu()).sigmoid()
        return m.out(y * gate)

    layers = {"down": nn.Conv2d(8, 4, 1), "up": nn.Conv2d(4, 8, 1)}
    return Net(run, a=conv(3, 8), **layers, out=conv(8, 2)), (image(),)


@cut
def a_gate_over_all_positions():
    def run(m, x):
        return m.out((y := m.a(x)) * m.gate(y).sigmoid())

    return Net(run, a=conv(3, 8), gate=conv(8, 1), out=conv(8, 2)), (image(),)


def involution(groups: int, width: int):
    """A kernel at each place, the same for all channels of a group: it spreads over them, they over its taps."""
    channels = groups * width

    def run(m, x):
        y = m.a(x)
        batch, _, height, across = y.shape
        kernel = m.span(m.reduce(y).relu()).view(batch, groups, 1, 9, height, across)
        patches = functional.unfold(y, 3, padding=1).view(batch, groups, width, 9, height, across)
        return m.out((kernel * patches).sum(3).view(batch, channels, height, across))

    layers = {"reduce": nn.Conv2d(channels, 6, 1), "span": nn.Conv2d(6, 9 * groups, 1)}
    return Net(run, a=conv(3, channels), **layers, out=conv(channels, 2)), (image(),)


@cut
def involution_of_as_many_groups_as_channels_in_each():
    return involution(4, 4)


@cut
def involution_of_many_groups():
    return involution(8, 2)


@cut
def involution_of_few_groups():
    return involution(2, 8)


@cut
def a_gate_for_each_pair_of_groups():
    """It meets two classes, and stays; so do these, since it has their number along the same dim."""

    def run(m, x):
        gate = m.gate(x).view(-1, 2, 2).mean(2, keepdim=True).expand(-1, 2, 2).reshape(-1, 4, 1)
        return m.out(((m.a(m.hidden(x)).view(-1, 4, 5) * gate).softmax(2)).flatten(1))

    layers = {"gate": nn.Linear(7, 4), "hidden": nn.Linear(7, 12), "a": nn.Linear(12, 20)}
    return Net(run, **layers, out=nn.Linear(20, 3)), (torch.randn(2, 7),)


@cut
def layer_scale_and_a_buffer():
    net = Net(
        lambda m, x: m.out(m.a(x) * m.scale + m.shift), a=conv(3, 8), scale=parameter(8, 1, 1), out=conv(8, 2)
    )
    net.register_buffer("shift", torch.randn(1, 8, 1, 1))
    return net, (image(),)


@cut
def every_activation():
    def run(m, x):
        y = m.a(x)
        names = "hardswish gelu silu elu mish softplus hardtanh relu6 leaky_relu"
        for name in names.split():
            y = getattr(functional, name)(y)
        return m.out(
            functional.hardsigmoid(y).clamp(0.1, 0.9).masked_fill(y > 0.5, 0.3) + torch.where(y > 0, y, y * 2)
        )

    return Net(run, a=conv(3, 8), out=conv(8, 2)), (image(),)


@cut
def pools_and_resizing():
    def run(m, x):
        y = functional.max_pool2d(m.a(x), 2)
        y = functional.interpolate(functional.avg_pool2d(y, 3, 1, 1), scale_factor=2, mode="bilinear")
        return m.out(functional.adaptive_max_pool2d(functional.interpolate(y, scale_factor=2), 3))

    return Net(run, a=conv(3, 8), out=conv(8, 2)), (image(),)


@cut
def normed_in_another_precision():
    """A cast leaves an assertion about its input in the graph."""

    def run(m, x):
        y = m.a(x)
        return m.out(m.norm(y.float().to(x.dtype)).to(torch.float64))

    return Net(run, a=conv(3, 8), norm=nn.BatchNorm2d(8), out=conv(8, 2)), (image(),)
