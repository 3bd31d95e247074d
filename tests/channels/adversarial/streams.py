"""Residual streams, and shortcuts that leave out channels or add some."""

from __future__ import annotations

import torch
from torch.nn import functional

from tests.channels.adversarial.network import Net, conv, cut, image


@cut
def residual():
    def run(m, x):
        return m.out((y := m.a(x)) + m.b(y).relu())

    return Net(run, a=conv(3, 8), b=conv(8, 8), out=conv(8, 2)), (image(),)


@cut
def residual_in_place():
    def run(m, x):
        y = m.a(x).relu_()
        y += m.b(y).clone()
        return m.out(y)

    return Net(run, a=conv(3, 8), b=conv(8, 8), out=conv(8, 2)), (image(),)


@cut
def shortcut_by_padding():
    """Option A of the ResNet paper."""

    def run(m, x):
        y = m.a(x)
        return m.out(functional.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)) + m.b(y).relu())

    layers = {"a": conv(3, 8), "b": conv(8, 16, stride=2), "out": conv(16, 2)}
    return Net(run, **layers), (image(),)


@cut
def shortcut_by_zeros_beside_it():
    def run(m, x):
        y = m.a(x)
        return m.out(torch.cat([y, torch.zeros_like(y)], 1) + m.b(y))

    return Net(run, a=conv(3, 8), b=conv(8, 16), out=conv(16, 2)), (image(),)


@cut
def padding_around_positions():
    def run(m, x):
        return m.out(functional.pad(m.a(x), (1, 2, 0, 1)))

    return Net(run, a=conv(3, 8), out=conv(8, 2)), (image(),)
