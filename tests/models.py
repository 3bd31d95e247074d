"""Small models, one for every kind of layer and every way in which layers meet."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hashcompile.core.method import Compute

COMPUTES: tuple[Compute, ...] = ("float", "int8")
Inputs = tuple[Tensor, ...]
Make = Callable[[int], Inputs]  # batch size -> inputs, other ones for every size


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int) -> Make:
    return lambda batch: (torch.randn(batch, *shape, generator=generator(batch)),)


def ids(vocabulary: int, length: int) -> Make:
    return lambda batch: (torch.randint(vocabulary, (batch, length), generator=generator(batch)),)


class Residual(nn.Module):
    """Convolutions with batch norms, one of them with a bias, around a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(32)
        self.conv = nn.Conv2d(32, 32, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(32)
        self.head = nn.Linear(32, 40)
        for norm in (self.norm1, self.norm2):  # as after training
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.stem(x)).relu()
        x = x + self.norm2(self.conv(x)).relu()
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """A transformer block; inputs have two batch dims."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        for norm in (self.norm1, self.norm2):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = (part.transpose(-2, -3) for part in parts.unbind(-3))
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        x = x + self.out((weights @ v).transpose(-2, -3).flatten(-2))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class Tied(nn.Module):
    """A language model whose output projection is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(80, 32)
        self.fc = nn.Linear(32, 32)
        self.head = nn.Linear(32, 80, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.fc(self.embed(ids)).tanh())


class Mixed(nn.Module):
    """An embedding, a linear layer and a convolution, all of odd sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(75, 36)
        self.fc = nn.Linear(36, 40)
        self.conv = nn.Conv1d(40, 50, 3, padding=1)

    def forward(self, ids: Tensor) -> Tensor:
        return self.conv(self.fc(self.embed(ids)).relu().transpose(1, 2))


class Blocks(nn.Module):
    """Inner products of rows and blocks of rows: a product of activations that is broadcast, which no kernel has."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 40)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y.unsqueeze(1) @ y.unflatten(1, (3, 4)).transpose(2, 3)


ZOO: dict[str, tuple[Callable[[], nn.Module], Make]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(50, 70), nn.ReLU(), nn.Linear(70, 33, bias=False)), normal(50)),
    "cnn": (Residual, normal(3, 8, 8)),
    "strided": (
        lambda: nn.Sequential(nn.Conv2d(6, 40, (3, 2), stride=2, padding=(2, 1), dilation=(2, 1)), nn.ReLU()),
        normal(6, 11, 9),
    ),
    "same": (lambda: nn.Sequential(nn.Conv2d(8, 32, 4, padding="same")), normal(8, 7, 6)),
    "grouped": (
        lambda: nn.Sequential(nn.Conv2d(16, 32, 3, groups=2), nn.BatchNorm2d(32), nn.ReLU()),
        normal(16, 6, 6),
    ),
    "depthwise": (
        lambda: nn.Sequential(nn.Conv2d(32, 32, 3, groups=32, padding=1), nn.Conv2d(32, 32, 1)),
        normal(32, 5, 5),
    ),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(16, 40, 5, stride=2, padding=2), nn.GELU()), normal(16, 13)),
    "conv3d": (lambda: nn.Sequential(nn.Conv3d(4, 32, 3, padding=1)), normal(4, 4, 5, 3)),
    "transposed": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(32, 32, 3, stride=2, groups=2, output_padding=1), nn.BatchNorm2d(32)
        ),
        normal(32, 4, 3),
    ),
    "embedding": (lambda: nn.Sequential(nn.Embedding(90, 24, padding_idx=0)), ids(90, 7)),
    "tied": (Tied, ids(80, 6)),
    "attention": (Attention, normal(2, 5, 32)),
    "mixed": (Mixed, ids(75, 6)),
    "blocks": (Blocks, normal(12, 16)),
}


def build(name: str) -> tuple[nn.Module, Make]:
    """The model in evaluation mode, the same one every time, and what makes its inputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        make, inputs = ZOO[name]
        return make().eval(), inputs
