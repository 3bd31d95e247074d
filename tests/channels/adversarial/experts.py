"""Weights of several experts, stacked in one tensor."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tests.channels.adversarial.network import Net, cut, heads_of, parameter, tokens


@cut
def experts_that_a_gate_weighs():
    """Hidden units go, the same of every expert, and so does the stream that feeds the gate as well."""

    def run(m, x):
        x = m.a(x)
        shares = m.gate(x).softmax(-1)
        y = (torch.einsum("bnd,xdh->bnxh", x, m.up) + m.bias).relu()
        y = torch.einsum("bnxh,xhd->bnxd", y, m.down)
        return m.out(x + (y * shares[..., None]).sum(2))

    layers = {"a": nn.Linear(7, 8), "gate": nn.Linear(8, 3), "out": nn.Linear(8, 4)}
    return Net(run, **layers, up=parameter(3, 8, 12), bias=parameter(3, 12), down=parameter(3, 12, 8)), (
        tokens(7),
    )


@cut
def gated_experts_by_bmm():
    """Every expert sees all tokens: (experts, tokens, width)."""

    def run(m, x):
        batch, length, _ = x.shape
        y = m.a(x).reshape(1, batch * length, 8).expand(3, -1, -1)
        y = torch.bmm(functional.silu(torch.bmm(y, m.gate)) * (y @ m.up), m.down)
        return m.out(y.mean(0).view(batch, length, 8))

    stacked = {"gate": parameter(3, 8, 12), "up": parameter(3, 8, 12), "down": parameter(3, 12, 8)}
    return Net(run, a=nn.Linear(7, 8), **stacked, out=nn.Linear(8, 4)), (tokens(7),)


@cut
def a_matrix_for_each_head():
    """Heads go with their matrices, whose widths are summed by scores."""

    def run(m, x):
        q, k, v = (heads_of(f(x), 4) for f in (m.q, m.k, m.v))
        scores = torch.einsum("bhnd,hde->bhne", q, m.turn) @ (k @ m.other).transpose(-1, -2)
        return m.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    layers = {n: nn.Linear(24, 24) for n in "qkv"}
    turns = {"turn": parameter(4, 6, 6), "other": parameter(4, 6, 6)}
    return Net(run, **layers, **turns, out=nn.Linear(24, 24)), (tokens(24),)
