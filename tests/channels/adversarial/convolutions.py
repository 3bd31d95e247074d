"""Convolutions with groups, transposed ones, shuffles; weights that are computed, shared or no layer's."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tests.channels.adversarial.network import Net, conv, cut, image, parameter


@cut
def depthwise():
    def run(m, x):
        return m.out(m.deep(m.a(x)).relu())

    return Net(run, a=conv(3, 8), deep=conv(8, 8, groups=8), out=conv(8, 2)), (image(),)


@cut
def depthwise_with_a_multiplier():
    def run(m, x):
        return m.out(m.deep(m.a(x)).relu())

    return Net(run, a=conv(3, 6), deep=conv(6, 18, groups=6), out=conv(18, 2)), (image(),)


@cut
def many_groups():
    def run(m, x):
        return m.out(m.grouped(m.a(x)))

    return Net(run, a=conv(3, 16), grouped=conv(16, 24, groups=8), out=conv(24, 2)), (image(),)


@cut
def few_groups():
    def run(m, x):
        return m.out(m.grouped(m.a(x)))

    return Net(run, a=conv(3, 16), grouped=conv(16, 12, groups=2), out=conv(12, 2)), (image(),)


@cut
def groups_of_both_kinds_in_a_row():
    layers = {"a": conv(3, 24), "few": conv(24, 24, groups=2), "many": conv(24, 24, groups=6)}

    def run(m, x):
        return m.out(m.many(m.few(m.a(x)).relu()))

    return Net(run, **layers, out=conv(24, 2)), (image(),)


@cut
def transposed_convolutions():
    layers = {
        "a": conv(3, 8),
        "up": nn.ConvTranspose2d(8, 12, 2, stride=2),
        "few": nn.ConvTranspose2d(12, 8, 3, groups=2),
        "many": nn.ConvTranspose2d(8, 16, 3, groups=8),
    }

    def run(m, x):
        return m.out(m.many(m.few(m.up(m.a(x)).relu())))

    return Net(run, **layers, out=conv(16, 2)), (image(size=4),)


@cut
def shuffle_by_views():
    def run(m, x):
        y = m.a(x)
        y = y.view(y.shape[0], 3, 4, 6, 6).transpose(1, 2).reshape(y.shape[0], 12, 6, 6)
        return m.out(m.b(y))

    return Net(run, a=conv(3, 12), b=conv(12, 9, groups=3), out=conv(9, 2)), (image(),)


@cut
def channel_shuffle():
    def run(m, x):
        return m.out(functional.channel_shuffle(m.a(x), 3))

    return Net(run, a=conv(3, 12), out=conv(12, 2)), (image(),)


@cut
def pixel_shuffle():
    def run(m, x):
        return m.out(functional.pixel_unshuffle(m.b(functional.pixel_shuffle(m.a(x), 2)), 3))

    return Net(run, a=conv(3, 16), b=conv(4, 5), out=conv(45, 2)), (image(),)


@cut
def one_image_without_a_batch_dim():
    def run(m, x):
        return m.out(m.a(x[0]))[None] + x[:, :1]

    return Net(run, a=conv(3, 8), out=conv(8, 3)), (image(),)


@cut
def standardised_weights():
    """What a layer makes can go; what it reads goes into the statistics of its weight."""

    def run(m, x):
        w = m.b.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / w.std((1, 2, 3), keepdim=True)
        return m.out(functional.conv2d(m.a(x), w, m.b.bias, padding=1))

    return Net(run, a=conv(3, 8), b=conv(8, 10), out=conv(10, 2)), (image(),)


@cut
def weight_norm():
    normed = nn.utils.parametrizations.weight_norm(conv(8, 10))
    return Net(lambda m, x: m.out(m.b(m.a(x))), a=conv(3, 8), b=normed, out=conv(10, 2)), (image(),)


@cut
def one_layer_twice():
    def run(m, x):
        return m.out(m.b(m.b(m.a(x)).relu()))

    return Net(run, a=conv(3, 8), b=conv(8, 8), out=conv(8, 2)), (image(),)


@cut
def a_matrix_that_is_no_layer():
    def run(m, x):
        return torch.addmm(m.shift, (x @ m.up).relu(), m.down)

    return Net(run, up=parameter(7, 12), down=parameter(12, 5), shift=parameter(5)), (torch.randn(2, 7),)


@cut
def a_matrix_and_its_transpose():
    """An autoencoder whose decoder is its encoder, transposed."""

    def run(m, x):
        y = functional.linear(x, m.matrix).relu()
        return m.out(functional.linear(y, m.matrix.t()).relu() @ m.other.T)

    return Net(run, matrix=parameter(12, 7), other=parameter(9, 7), out=nn.Linear(9, 5)), (torch.randn(2, 7),)


@cut
def a_layer_in_the_words_of_einsum():
    def run(m, x):
        return m.out(torch.einsum("ed,bdhw->behw", m.matrix, m.a(x)).relu())

    return Net(run, a=conv(3, 8), matrix=parameter(10, 8), out=conv(10, 2)), (image(),)
