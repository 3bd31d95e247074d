"""Small networks, each with one thing that cutting channels could get wrong.

`CUT` are those of which something can go; `WHOLE` those that must stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Make = Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]
CUT: dict[str, Make] = {}
WHOLE: dict[str, Make] = {}


class Net(nn.Module):
    """Layers by name, and a function that runs them."""

    def __init__(self, run: Callable[..., Any], **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor, y: Tensor | None = None, z: Tensor | None = None) -> Any:
        return self.run(self, *(each for each in (x, y, z) if each is not None))


def image(channels: int = 3, size: int = 6) -> Tensor:
    return torch.randn(2, channels, size, size)


def tokens(width: int, length: int = 5) -> Tensor:
    return torch.randn(2, length, width)


def conv(into: int, out: int, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(into, out, 3, padding=1, **more)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def cut(make: Make) -> Make:
    CUT[make.__name__] = make
    return make


def whole(make: Make) -> Make:
    WHOLE[make.__name__] = make
    return make


# views and literal sizes


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


# residual streams


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


# concatenation, splits, slices


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


# convolutions


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


# norms, gates, activations


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
def writes_into_a_slice():
    def run(m, x):
        y = m.a(x).clone()
        y[:, 2:5] += m.b(x)
        y[:, :2] = m.c(x)
        return m.out(y)

    return Net(run, a=conv(3, 8), b=conv(3, 3), c=conv(3, 2), out=conv(8, 2)), (image(),)


# attention


def heads_of(x: Tensor, heads: int) -> Tensor:
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def mixed(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    y = functional.scaled_dot_product_attention(q, k, v)
    return m.out(y.transpose(1, 2).flatten(2))


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


# feed-forward layers, embeddings


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


# what must stay


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
        return m.out(functional.unfold(m.a(x), 2).flatten(1))

    return Net(run, a=conv(3, 4), out=nn.Linear(400, 2)), (image(),)


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
