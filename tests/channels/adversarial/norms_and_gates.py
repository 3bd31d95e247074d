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
