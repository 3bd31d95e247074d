"""What the small networks are made of, and the two lists of them."""

from __future__ import annotations

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
    return listed(CUT, make)


def whole(make: Make) -> Make:
    return listed(WHOLE, make)


def listed(among: dict[str, Make], make: Make) -> Make:
    assert make.__name__ not in {**CUT, **WHOLE}, make.__name__
    among[make.__name__] = make
    return make


def heads_of(x: Tensor, heads: int) -> Tensor:
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def mixed(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    y = functional.scaled_dot_product_attention(q, k, v)
    return m.out(y.transpose(1, 2).flatten(2))
