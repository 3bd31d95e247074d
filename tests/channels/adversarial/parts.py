"""Concatenation, splits, slices, and other orders of channels."""

from __future__ import annotations

import torch
from torch import nn

from tests.channels.adversarial.network import Net, conv, cut, image, parameter, tokens


@cut
def concatenation():
    def run(m, x):
        return m.out(torch.cat([m.a(x), m.b(x).relu(), x], 1))

    return Net(run, a=conv(3, 4), b=conv(3, 6), out=conv(13, 2)), (image(),)


@cut
def concatenation_in_a_residual():
    def run(m, x):
        return m.out(torch.cat([m.a(x), m.b(x)], 1) + m.c(x))

    return Net(run, a=conv(3, 4), b=conv(3, 6), c=conv(3, 10), out=conv(10, 2)), (image(),)


@cut
def dense_connections():
    def run(m, x):
        y = torch.cat([x, m.a(x)], 1)
        y = torch.cat([y, m.b(y)], 1)
        return m.out(m.norm(y))

    layers = {"a": conv(3, 4), "b": conv(7, 4), "norm": nn.BatchNorm2d(11), "out": conv(11, 2)}
    return Net(run, **layers), (image(),)


@cut
def unequal_split():
    def run(m, x):
        a, b = m.a(x).split([3, 5], 1)
        return m.left(a) + m.right(b)

    return Net(run, a=conv(3, 8), left=conv(3, 2), right=conv(5, 2)), (image(),)


@cut
def chunks():
    def run(m, x):
        a, b, c = m.a(x).chunk(3, 1)
        return m.out(a * b.sigmoid() + c)

    return Net(run, a=conv(3, 12), out=conv(4, 2)), (image(),)


@cut
def slices():
    def run(m, x):
        return m.left((y := m.a(x))[:, :3]) + m.right(y[:, 2:-1])

    return Net(run, a=conv(3, 8), left=conv(3, 2), right=conv(5, 2)), (image(),)


@cut
def every_second_channel():
    def run(m, x):
        return m.left((y := m.a(x))[:, ::2]) + m.right(y[:, 1::2])

    return Net(run, a=conv(3, 8), left=conv(4, 2), right=conv(4, 2)), (image(),)


@cut
def one_channel_by_its_number():
    def run(m, x):
        return m.out(y := m.a(x)) * y[:, 5:6].sigmoid() + y.select(1, 2)[:, None]

    return Net(run, a=conv(3, 8), out=conv(8, 2)), (image(),)


@cut
def flipped():
    def run(m, x):
        return m.out(m.a(x).flip(1, 3))

    return Net(run, a=conv(3, 8), out=conv(8, 2)), (image(),)


@cut
def rolled():
    def run(m, x):
        return m.out(m.a(x).roll((3, 1), (1, 2)))

    return Net(run, a=conv(3, 8), out=conv(8, 2)), (image(),)


@cut
def reordered_by_an_index():
    def run(m, x):
        return m.out(m.a(x)[:, [5, 0, 0, 7, 2]])

    return Net(run, a=conv(3, 8), out=conv(5, 2)), (image(),)


@cut
def index_select():
    net = Net(lambda m, x: m.out(m.a(x).index_select(1, m.order)), a=conv(3, 8), out=conv(6, 2))
    net.register_buffer("order", torch.tensor([7, 1, 1, 0, 4, 3]))
    return net, (image(),)


@cut
def repeated():
    def run(m, x):
        return m.out(torch.cat([(y := m.a(x)).repeat(1, 2, 1, 1), y.repeat_interleave(2, 1)], 1))

    return Net(run, a=conv(3, 4), out=conv(16, 2)), (image(),)


@cut
def stacked():
    def run(m, x):
        return m.out(torch.stack([m.a(x), m.b(x)], 2).amax(2))

    return Net(run, a=conv(3, 8), b=conv(3, 8), out=conv(8, 2)), (image(),)


@cut
def a_parameter_in_another_order():
    def run(m, x):
        return m.out(m.a(x) * m.scale.roll(1) + m.shift.flip(0))

    layers = {"scale": parameter(8), "shift": parameter(8), "out": nn.Linear(8, 2)}
    return Net(run, a=nn.Linear(7, 8), **layers), (tokens(7),)


@cut
def repeated_to_a_literal_size():
    def run(m, x):
        return m.out(m.a(x).repeat_interleave(3, 1, output_size=12))

    return Net(run, a=conv(3, 4), out=conv(12, 2)), (image(),)
