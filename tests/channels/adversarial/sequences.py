"""Feed-forward layers, embeddings, recurrences."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tests.channels.adversarial.network import Net, cut, image, parameter, tokens


@cut
def gated_hidden_width():
    def run(m, x):
        return m.down(functional.silu(m.gate(x)) * m.up(x))

    return Net(run, gate=nn.Linear(7, 12), up=nn.Linear(7, 12), down=nn.Linear(12, 7)), (tokens(7),)


@cut
def gated_in_one_product():
    def run(m, x):
        gate, up = m.both(x).chunk(2, -1)
        return m.down(functional.glu(m.more(gate.sigmoid() * up)))

    layers = {"both": nn.Linear(7, 24), "more": nn.Linear(12, 20), "down": nn.Linear(10, 7)}
    return Net(run, **layers), (tokens(7),)


@cut
def a_normed_stream():
    layers = {
        "a": nn.Linear(7, 10),
        "norm": nn.LayerNorm(10),
        "up": nn.Linear(10, 20),
        "down": nn.Linear(20, 10),
    }

    def run(m, x):
        return (y := m.a(x)) + m.down(m.up(m.norm(y)).relu())

    return Net(run, **layers), (tokens(7),)


@cut
def mixer():
    """Layers over tokens and over channels in turns: channels of either kind are one class; hidden widths can go."""

    def run(m, x):
        y = m.a(x)
        y = y + m.down(m.up(y.transpose(1, 2)).relu()).transpose(1, 2)
        return m.out(y)

    layers = {
        "a": nn.Linear(7, 10),
        "up": nn.Linear(5, 16),
        "down": nn.Linear(16, 5),
        "out": nn.Linear(10, 3),
    }
    return Net(run, **layers), (tokens(7),)


@cut
def embedding():
    ids = torch.randint(20, (2, 5))
    return Net(
        lambda m, x: m.fc(m.embed(x) + m.place),
        embed=nn.Embedding(20, 12),
        place=parameter(5, 12),
        fc=nn.Linear(12, 6),
    ), (ids,)


@cut
def embedding_that_is_the_head_too():
    net = Net(
        lambda m, x: m.head(m.fc(m.embed(x)).relu()),
        embed=nn.Embedding(20, 12),
        fc=nn.Linear(12, 12),
        head=nn.Linear(12, 20, bias=False),
    )
    net.head.weight = net.embed.weight
    return net, (torch.randint(20, (2, 5)),)


@cut
def class_token_and_positions():
    def run(m, x):
        y = m.patch(x).flatten(2).transpose(1, 2)
        y = torch.cat([m.token.expand(y.shape[0], -1, -1), y], 1) + m.place
        return m.head(m.up(y).relu()[:, 0])

    layers = {"patch": nn.Conv2d(3, 12, 2, 2), "up": nn.Linear(12, 16), "head": nn.Linear(16, 3)}
    return Net(run, **layers, token=parameter(1, 1, 12), place=parameter(1, 10, 12)), (image(),)


@cut
def two_inputs_and_two_outputs():
    def run(m, x, y):
        return {"sum": m.out((z := m.a(x) + m.b(y)).relu()), "mean": m.other(z).mean()}

    layers = {
        "a": nn.Linear(7, 12),
        "b": nn.Linear(4, 12),
        "out": nn.Linear(12, 3),
        "other": nn.Linear(12, 5),
    }
    return Net(run, **layers), (tokens(7), tokens(4))


@cut
def a_recurrence_from_zeros():
    def run(m, x):
        h = torch.zeros(x.shape[0], 8, dtype=x.dtype)
        for t in range(3):
            into, back = m.into(x[:, t]).chunk(3, 1), m.back(h).chunk(3, 1)
            reset, update = ((a + b).sigmoid() for a, b in zip(into[:2], back[:2], strict=True))
            h = (1 - update) * (into[2] + reset * back[2]).tanh() + update * h
        return m.out(h)

    return Net(run, into=nn.Linear(7, 24), back=nn.Linear(8, 24), out=nn.Linear(8, 3)), (tokens(7),)
