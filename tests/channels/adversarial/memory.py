"""Values that are written in place, and constants that take the size of what they stand beside."""

from __future__ import annotations

import torch

from tests.channels.adversarial.network import Net, conv, cut, image


@cut
def writes_into_a_slice():
    def run(m, x):
        y = m.a(x).clone()
        y[:, 2:5] += m.b(x)
        y[:, :2] = m.c(x)
        return m.out(y)

    return Net(run, a=conv(3, 8), b=conv(3, 3), c=conv(3, 2), out=conv(8, 2)), (image(),)


@cut
def writes_into_a_half():
    def run(m, x):
        y = m.a(x).clone()
        a, b = y.chunk(2, 1)
        a.add_(b.relu())
        return m.out(y)

    return Net(run, a=conv(3, 8), out=conv(8, 2)), (image(),)


@cut
def writes_where_a_number_is_negative():
    def run(m, x):
        y = m.a(x).clone()
        y[y < 0] = 0.5
        return m.out(y)

    return Net(run, a=conv(3, 8), out=conv(8, 2)), (image(),)


@cut
def room_made_beforehand():
    def run(m, x):
        y = torch.empty(x.shape[0], 8, 6, 6, dtype=x.dtype)
        y[:, :3] = m.a(x)
        y[:, 3:] = m.b(x)
        return m.out(y)

    return Net(run, a=conv(3, 3), b=conv(3, 5), out=conv(8, 2)), (image(),)


@cut
def a_constant_of_as_many_channels():
    def run(m, x):
        zeros = x.new_zeros(x.shape[0], 8, 6, 6)
        return m.out(torch.cat([m.a(x) + torch.full((8, 1, 1), 0.3, dtype=x.dtype), zeros], 1) * m.b(x))

    return Net(run, a=conv(3, 8), b=conv(3, 16), out=conv(16, 2)), (image(),)
