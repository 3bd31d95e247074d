"""Views, literal sizes, and dims that come and go."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tests.channels.adversarial.network import Net, conv, cut, image, tokens


@cut
def flatten_by_a_literal_view():
    def run(m, x):
        return m.fc(m.conv(x).relu().view(x.shape[0], 8 * 6 * 6))

    return Net(run, conv=conv(3, 8), fc=nn.Linear(288, 5)), (image(),)


@cut
def a_view_that_infers_the_batch():
    def run(m, x):
        return m.fc(m.conv(x).relu().reshape(-1, 8 * 36))

    return Net(run, conv=conv(3, 8), fc=nn.Linear(288, 5)), (image(),)


@cut
def a_view_into_rows_and_back():
    def run(m, x):
        return m.fc(m.up(x).view(-1, 5, 3, 4).transpose(2, 3).relu().transpose(2, 3).reshape(-1, 5, 12))

    return Net(run, up=nn.Linear(7, 12), fc=nn.Linear(12, 5)), (tokens(7),)


@cut
def unflatten_and_flatten():
    def run(m, x):
        return m.fc(m.up(x).unflatten(-1, (4, 3)).relu().flatten(-2))

    return Net(run, up=nn.Linear(7, 12), fc=nn.Linear(12, 5)), (tokens(7),)


@cut
def expand_by_literal_sizes():
    def run(m, x):
        y = m.conv(x)
        return m.out(y + y.mean((2, 3), keepdim=True).expand(-1, 8, 6, 6))

    return Net(run, conv=conv(3, 8), out=conv(8, 2)), (image(),)


@cut
def channels_last():
    def run(m, x):
        return m.fc(m.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    return Net(run, conv=conv(3, 8), fc=nn.Linear(8, 5)), (image(),)


@cut
def a_squeeze_that_squeezed_nothing():
    def run(m, x):
        return m.fc(m.up(x).relu().unsqueeze(1).squeeze())

    return Net(run, up=nn.Linear(7, 2), fc=nn.Linear(2, 5)), (torch.randn(2, 7),)


@cut
def patches_and_back():
    """functional.unfold and fold, with a layer on the channels of each place between them."""

    def run(m, x):
        y = functional.unfold(m.a(x), 2, stride=2).unflatten(1, (8, 4))
        y = m.b(y.movedim(1, -1)).movedim(-1, 1).flatten(1, 2)
        return m.out(functional.fold(y, (6, 6), 2, stride=2))

    return Net(run, a=conv(3, 8), b=nn.Linear(8, 6), out=conv(6, 2)), (image(),)


@cut
def windows_that_overlap():
    """Tensor.unfold over positions, and what reads them flattened with the channels."""

    def run(m, x):
        y = m.a(x).unfold(2, 4, 2).unfold(3, 4, 2)
        return m.out(y.permute(0, 2, 3, 1, 4, 5).flatten(3)).mean((1, 2))

    return Net(run, a=conv(3, 8), out=nn.Linear(128, 2)), (image(),)
