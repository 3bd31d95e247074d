"""Attention in every spelling: heads are units, and so are the entries inside of them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tests.channels.adversarial.network import Net, cut, heads_of, mixed, parameter, tokens


@cut
def multihead_attention():
    layer = nn.MultiheadAttention(24, 4, batch_first=True)
    return Net(
        lambda m, x: m.out(m.attn(m.a(x), x, x, need_weights=False)[0]),
        a=nn.Linear(24, 24),
        attn=layer,
        out=nn.Linear(24, 5),
    ), (tokens(24),)


@cut
def multihead_attention_of_another_length():
    layer = nn.MultiheadAttention(24, 4, kdim=10, vdim=12, batch_first=True)

    def run(m, x, k, v):
        return m.attn(x, k, v, need_weights=False)[0]

    return Net(run, attn=layer), (tokens(24), tokens(10, 7), tokens(12, 7))


@cut
def encoder_layer():
    layer = nn.TransformerEncoderLayer(24, 4, 40, batch_first=True, norm_first=True, activation="gelu")
    return Net(lambda m, x: m.layer(x), layer=layer), (tokens(24),)


@cut
def packed_heads():
    def run(m, x):
        qkv = m.qkv(x).reshape(x.shape[0], 5, 3, 4, 6).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        scores = (q * 6**-0.5) @ k.transpose(-2, -1)
        return m.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape[0], 5, 24))

    return Net(run, qkv=nn.Linear(24, 72), out=nn.Linear(24, 24)), (tokens(24),)


@cut
def heads_folded_into_the_batch():
    """Symbolic sizes that hold the number of heads, shared by several views."""

    def run(m, x):
        batch = x.shape[0]
        rows = batch * 4
        q, k, v = (f(x).view(batch, 5, 4, 6).transpose(1, 2).reshape(rows, 5, 6) for f in (m.q, m.k, m.v))
        scores = (torch.bmm(q, k.transpose(1, 2)) + m.bias).softmax(-1)
        y = torch.bmm(scores, v).view(batch, 4, 5, 6)
        return m.out(y.transpose(1, 2).reshape(batch, 5, 24)) + scores.shape[0]

    layers = {n: nn.Linear(24, 24) for n in "qkv"}
    return Net(run, **layers, bias=parameter(1, 5, 5), out=nn.Linear(24, 24)), (tokens(24),)


@cut
def grouped_queries():
    def run(m, x):
        q, k, v = heads_of(m.q(x), 8), heads_of(m.k(x), 4), heads_of(m.v(x), 4)
        k, v = (y[:, :, None].expand(-1, 4, 2, 5, 6).reshape(-1, 8, 5, 6) for y in (k, v))
        return mixed(m, q, k, v)

    layers = {"q": nn.Linear(24, 48), "k": nn.Linear(24, 24), "v": nn.Linear(24, 24)}
    return Net(run, **layers, out=nn.Linear(48, 24)), (tokens(24),)


@cut
def grouped_queries_of_the_operator():
    def run(m, x):
        q, k, v = heads_of(m.q(x), 8), heads_of(m.k(x), 4), heads_of(m.v(x), 4)
        y = functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return m.out(y.transpose(1, 2).flatten(2))

    layers = {"q": nn.Linear(24, 48), "k": nn.Linear(24, 24), "v": nn.Linear(24, 24)}
    return Net(run, **layers, out=nn.Linear(48, 24)), (tokens(24),)


@cut
def rotary_positions():
    def run(m, x):
        position = torch.arange(5)[:, None] / 100.0 ** (torch.arange(3) / 3)
        cos, sin = (torch.cat([f(position)] * 2, -1) for f in (torch.cos, torch.sin))

        def turned(y):
            a, b = y.chunk(2, -1)
            return y * cos + torch.cat([-b, a], -1) * sin

        q, k, v = (heads_of(f(x), 4) for f in (m.q, m.k, m.v))
        return mixed(m, turned(q), turned(k), v)

    return Net(run, **{n: nn.Linear(24, 24) for n in "qkv"}, out=nn.Linear(24, 24)), (tokens(24),)


@cut
def normed_queries_and_keys():
    def run(m, x):
        q, k, v = (heads_of(f(x), 4) for f in (m.q, m.k, m.v))
        return mixed(m, m.norm(q), m.rms(k), v)

    layers = {"norm": nn.LayerNorm(6), "rms": nn.RMSNorm(6)}
    return Net(run, **{n: nn.Linear(24, 24) for n in "qkv"}, **layers, out=nn.Linear(24, 24)), (tokens(24),)


@cut
def cosine_attention_with_a_scale_a_head():
    def run(m, x):
        q, k, v = (heads_of(f(x), 4) for f in (m.q, m.k, m.v))
        scores = (
            functional.normalize(q, dim=-1)
            @ functional.normalize(k, dim=-1).transpose(-1, -2)
            * m.scale.exp()
        )
        return m.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    return Net(
        run, **{n: nn.Linear(24, 24) for n in "qkv"}, scale=parameter(4, 1, 1), out=nn.Linear(24, 24)
    ), (tokens(24),)


@cut
def bias_of_relative_positions():
    def run(m, x):
        q, k, v = (heads_of(f(x), 4) for f in (m.q, m.k, m.v))
        bias = m.table[m.where.view(-1)].view(5, 5, -1).permute(2, 0, 1).contiguous()
        return m.out(
            functional.scaled_dot_product_attention(q, k, v, attn_mask=bias[None]).transpose(1, 2).flatten(2)
        )

    net = Net(run, **{n: nn.Linear(24, 24) for n in "qkv"}, table=parameter(9, 4), out=nn.Linear(24, 24))
    net.register_buffer("where", torch.arange(5)[:, None] - torch.arange(5)[None] + 4)
    return net, (tokens(24),)


@cut
def attention_by_einsum():
    def run(m, x):
        q, k, v = (f(x).view(-1, 5, 4, 6) for f in (m.q, m.k, m.v))
        scores = torch.einsum("bihd,bjhd->bhij", q, k).softmax(-1)
        return m.out(torch.einsum("bhij,bjhd->bihd", scores, v).flatten(2))

    return Net(run, **{n: nn.Linear(24, 24) for n in "qkv"}, out=nn.Linear(24, 24)), (tokens(24),)


@cut
def a_causal_mask():
    def run(m, x):
        q, k, v = (heads_of(f(x), 4) for f in (m.q, m.k, m.v))
        mask = torch.ones(5, 5, dtype=torch.bool).tril()
        scores = (q @ k.transpose(-1, -2)).masked_fill(~mask, -torch.inf).softmax(-1)
        return m.out((scores @ v).transpose(1, 2).flatten(2))

    return Net(run, **{n: nn.Linear(24, 24) for n in "qkv"}, out=nn.Linear(24, 24)), (tokens(24),)


@cut
def a_bias_that_is_embedded():
    """One row of an embedding for each distance, with an entry a head."""

    def run(m, x):
        q, k, v = (heads_of(f(x), 4) for f in (m.q, m.k, m.v))
        at = torch.arange(5)
        bias = m.table(at[None] - at[:, None] + 4).permute(2, 0, 1)[None]
        return m.out(((q @ k.transpose(-1, -2) + bias).softmax(-1) @ v).transpose(1, 2).flatten(2))

    layers = {n: nn.Linear(24, 24) for n in "qkv"}
    return Net(run, **layers, table=nn.Embedding(9, 4), out=nn.Linear(24, 24)), (tokens(24),)


@cut
def heads_that_talk():
    """Scores are mixed by layers over heads: scores and values have heads of their own."""

    def run(m, x):
        q, k, v = (heads_of(f(x), 4) for f in (m.q, m.k, m.v))
        scores = m.before((q @ k.transpose(-1, -2)).permute(0, 2, 3, 1)).softmax(2)
        return m.out((m.behind(scores).permute(0, 3, 1, 2) @ v).transpose(1, 2).flatten(2))

    layers = {n: nn.Linear(24, 24) for n in "qkv"}
    mixers = {"before": nn.Linear(4, 6), "behind": nn.Linear(6, 4)}
    return Net(run, **layers, **mixers, out=nn.Linear(24, 24)), (tokens(24),)


@cut
def a_mask_that_is_filled_in():
    def run(m, x):
        mask = torch.zeros(5, 5, dtype=x.dtype)
        mask[:, 3:] = -9.0
        q, k, v = (heads_of(f(x), 4) for f in (m.q, m.k, m.v))
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return m.out(y.transpose(1, 2).flatten(2))

    return Net(run, **{n: nn.Linear(24, 24) for n in "qkv"}, out=nn.Linear(24, 24)), (tokens(24),)
