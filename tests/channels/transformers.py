"""Networks in the manner of timm: what users have. Each is small, and in evaluation mode."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int, gated: bool) -> None:
        super().__init__()
        self.gated = gated
        self.fc1 = nn.Linear(width, 2 * hidden if gated else hidden)
        self.norm = nn.Identity()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        if self.gated:
            x, gate = x.chunk(2, dim=-1)
            x = x * functional.silu(gate)
        else:
            x = functional.gelu(x)
        return self.fc2(self.norm(x))


class Attention(nn.Module):
    """Packed queries, keys and values, normed within heads, scores written out."""

    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.size, self.fused = heads, width // heads, fused
        self.scale = self.size**-0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm, self.k_norm = nn.LayerNorm(self.size), nn.LayerNorm(self.size)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.fused:
            x = functional.scaled_dot_product_attention(q, k, v)
        else:
            x = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        return self.proj(x.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, gated: bool, fused: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = Attention(width, heads, fused), Mlp(width, 3 * width, gated)
        self.gamma1, self.gamma2 = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.gamma1 * self.attn(self.norm1(x))
        return x + self.gamma2 * self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Class token, learnt positions, layer scale; gated or plain layers, attention fused or written out."""

    def __init__(self, width: int = 24, heads: int = 4, gated: bool = False, fused: bool = False) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 17, width))
        self.blocks = nn.Sequential(Block(width, heads, gated, fused))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), dim=1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


def partition(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C) -> (B * windows, window * window, C)."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window, window, width // window, window, channels)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, window * window, channels)


def reverse(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """Inverse of `partition`."""
    x = windows.view(-1, height // window, width // window, window, window, windows.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, height, width, windows.shape[-1])


class WindowAttention(nn.Module):
    """A table of relative positions, one column a head; a mask where windows were shifted across the border."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads))
        at = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        apart = (at[:, :, None] - at[:, None, :]).permute(1, 2, 0) + window - 1
        self.register_buffer("index", apart[..., 0] * (2 * window - 1) + apart[..., 1])

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        rows, length, width = x.shape
        qkv = self.qkv(x).reshape(rows, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        scores = q * (width // self.heads) ** -0.5 @ k.transpose(-2, -1)
        bias = self.table[self.index.view(-1)].view(length, length, -1).permute(2, 0, 1).contiguous()
        scores = scores + bias.unsqueeze(0)
        if mask is not None:
            windows = mask.shape[0]
            scores = scores.view(-1, windows, self.heads, length, length) + mask.unsqueeze(1).unsqueeze(0)
            scores = scores.view(-1, self.heads, length, length)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(rows, length, width))


class SwinBlock(nn.Module):
    def __init__(self, width: int, heads: int, size: int, window: int, shift: int) -> None:
        super().__init__()
        self.size, self.window, self.shift = size, window, shift
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = WindowAttention(width, heads, window), Mlp(width, 2 * width, gated=False)
        mask = None
        if shift:
            regions, count = torch.zeros(1, size, size, 1), 0
            borders = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
            for rows in borders:
                for columns in borders:
                    regions[:, rows, columns] = count
                    count += 1
            parts = partition(regions, window).squeeze(-1)
            apart = parts.unsqueeze(1) - parts.unsqueeze(2)
            mask = apart.masked_fill(apart != 0, -100.0)
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = reverse(self.attn(partition(y, self.window), self.mask), self.window, self.size, self.size)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(parts, -1)))


class Swin(nn.Module):
    """Shifted windows, patches that are merged, and a window that needs no shift."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 2, 2)
        self.stage1 = nn.Sequential(SwinBlock(width, 4, 8, 4, 2))
        self.merge = PatchMerging(width)
        self.stage2 = nn.Sequential(SwinBlock(2 * width, 4, 4, 4, 0))
        self.norm, self.head = nn.LayerNorm(2 * width), nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage1(self.patch(x).permute(0, 2, 3, 1))
        return self.head(self.norm(self.stage2(self.merge(x))).mean((1, 2)))


class RotaryDecoder(nn.Module):
    """In the manner of Llama: rotary positions, grouped queries, gated layers, RMS norms; the head is the embedding."""

    def __init__(self, width: int = 24, heads: int = 6, groups: int = 3) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.embed = nn.Embedding(50, width)
        self.q, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(width, groups * self.size, bias=False) for _ in range(2))
        self.gate, self.up, self.down = nn.Linear(width, 40), nn.Linear(width, 40), nn.Linear(40, width)
        self.norm1, self.norm2, self.norm3 = (nn.RMSNorm(width) for _ in range(3))
        self.head = nn.Linear(width, 50, bias=False)
        self.head.weight = self.embed.weight

    def turned(self, x: Tensor) -> Tensor:
        length, half = x.shape[-2], self.size // 2
        angle = torch.arange(length)[:, None] / 100.0 ** (torch.arange(half) / half)
        cos, sin = (torch.cat([f(angle)] * 2, -1)[None, None].to(x) for f in (torch.cos, torch.sin))
        a, b = x[..., :half], x[..., half:]
        return x * cos + torch.cat((-b, a), -1) * sin

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        y = self.norm1(x)
        batch, length, width = y.shape
        q = self.turned(self.q(y).view(batch, length, self.heads, self.size).transpose(1, 2))
        k = self.turned(self.k(y).view(batch, length, self.groups, self.size).transpose(1, 2))
        v = self.v(y).view(batch, length, self.groups, self.size).transpose(1, 2)
        repeats = self.heads // self.groups
        k, v = (
            part[:, :, None]
            .expand(batch, self.groups, repeats, length, self.size)
            .reshape(batch, self.heads, length, self.size)
            for part in (k, v)
        )
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).contiguous().view(batch, length, width))
        y = self.norm2(x)
        x = x + self.down(functional.silu(self.gate(y)) * self.up(y))
        return self.head(self.norm3(x))


NETWORKS = {
    "vit": (VisionTransformer, torch.randn(2, 3, 16, 16)),
    "gated_vit": (lambda: VisionTransformer(gated=True, fused=True), torch.randn(2, 3, 16, 16)),
    "swin": (Swin, torch.randn(2, 3, 16, 16)),
    "rotary_decoder": (RotaryDecoder, torch.randint(50, (2, 7))),
}
