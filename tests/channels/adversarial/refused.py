"""What must stay as it is, and says why."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from tests.channels.adversarial.network import Net, conv, image, tokens, whole


@whole
def an_output():
    return Net(lambda m, x: m.a(x).relu(), a=conv(3, 8)), (image(),)


@whole
def softmax_over_channels():
    return Net(lambda m, x: m.out(m.a(x).softmax(1)), a=conv(3, 8), out=conv(8, 2)), (image(),)


@whole
def normed_channels():
    norm = nn.LayerNorm(8)

    def run(m, x):
        return m.out(m.norm(m.a(x)))

    return Net(run, a=nn.Linear(7, 8), norm=norm, out=nn.Linear(8, 3)), (tokens(7),)


@whole
def a_norm_written_out():
    def run(m, x):
        y = m.a(x)
        return m.out(y * torch.rsqrt(y.pow(2).mean(1, keepdim=True) + 1e-6))

    return Net(run, a=conv(3, 8), out=conv(8, 2)), (image(),)


@whole
def numbered_channels():
    def run(m, x):
        return m.out(m.a(x) * torch.arange(8.0, dtype=x.dtype)[:, None, None])

    return Net(run, a=conv(3, 8), out=conv(8, 2)), (image(),)


@whole
def an_input_added():
    return Net(lambda m, x: m.out(m.a(x) + x), a=conv(8, 8), out=conv(8, 2)), (image(8),)


@whole
def the_largest_channel():
    return Net(lambda m, x: m.out(m.a(x).sort(1)[0]), a=conv(3, 8), out=conv(8, 2)), (image(),)


@whole
def a_choice_that_the_input_makes():
    def run(m, x, i):
        return m.out(m.a(x)[:, i])

    return Net(run, a=conv(3, 8), out=conv(4, 2)), (image(), torch.tensor([1, 0, 7, 3]))


@whole
def an_operator_without_a_rule():
    def run(m, x):
        return m.out(torch.cdist(m.a(x).flatten(2), m.a(x).flatten(2)).flatten(1))

    return Net(run, a=conv(3, 4), out=nn.Linear(16, 2)), (image(),)


@whole
def a_recurrent_layer():
    def run(m, x):
        return m.out(m.rnn(m.a(x))[0])

    return Net(run, a=nn.Linear(7, 8), rnn=nn.LSTM(8, 6, batch_first=True), out=nn.Linear(6, 2)), (tokens(7),)


@whole
def linear_attention():
    def run(m, x):
        q, k, v = m.q(x).softmax(-1), m.k(x).softmax(1), m.v(x)
        return m.out(q @ (k.transpose(1, 2) @ v) / math.sqrt(5))

    return Net(run, **{n: nn.Linear(8, 8) for n in "qkv"}, out=nn.Linear(8, 8)), (tokens(8),)


@whole
def each_channel_by_itself():
    def run(m, x):
        return torch.stack([m.out(y[..., None]) for y in m.a(x).unbind(-1)]).sum(0)

    return Net(run, a=nn.Linear(7, 8), out=nn.Linear(1, 2)), (tokens(7),)


@whole
def weights_that_each_sample_makes():
    """As many groups as there are channels in the whole batch."""

    def run(m, x):
        batch, y = x.shape[0], m.a(x)
        w = m.make(y.mean((2, 3))).view(batch * 4, 1, 3, 3)
        y = functional.conv2d(y.reshape(1, batch * 4, 6, 6), w, padding=1, groups=batch * 4)
        return m.out(y.view(batch, 4, 6, 6))

    return Net(run, a=conv(3, 4), make=nn.Linear(4, 36), out=conv(4, 2)), (image(),)


@whole
def rolled_from_sample_to_sample():
    return Net(lambda m, x: m.out(m.a(x).roll(3)), a=conv(3, 8), out=conv(8, 2)), (image(),)


@whole
def repeated_each_by_its_own_number():
    net = Net(lambda m, x: m.out(m.a(x).repeat_interleave(m.times, 1)), a=conv(3, 4), out=conv(7, 2))
    net.register_buffer("times", torch.tensor([1, 2, 3, 1]))
    return net, (image(),)


@whole
def writes_to_chosen_places():
    def run(m, x):
        y = m.a(x).clone()
        y[:, [1, 3]] = m.b(x)
        return m.out(y)

    return Net(run, a=conv(3, 8), b=conv(3, 2), out=conv(8, 2)), (image(),)


@whole
def a_branch_that_the_input_chooses():
    def run(m, x):
        y = m.a(x)
        return m.out(torch.cond(y.sum() > 0, lambda y: y * 2, lambda y: y.relu(), (y,)))

    return Net(run, a=conv(3, 4), out=conv(4, 2)), (image(),)
