"""Networks drawn at random, of which random units are cut: exact, whatever stands behind whatever."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from hashcompile.passes.channels import find_groups
from tests.channels.exact import EXACT, at_random, captured, removal


class Step(nn.Module):
    """From (B, C, H, W) to (B, `width`, H, W); both widths are multiples of 4."""

    def __init__(self, width: int, run: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.width, self.run = width, run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def conv(into: int, out: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(into, out, 3, padding=1, groups=groups)


def residual(width: int) -> Step:
    return Step(width, lambda m, x: (x + m.b(m.a(x).relu())).relu(), a=conv(width, 8), b=conv(8, width))


def dense(width: int) -> Step:
    return Step(width + 4, lambda m, x: torch.cat([m.a(x), x], 1), a=conv(width, 4))


def gated(width: int) -> Step:
    def run(m: Step, x: Tensor) -> Tensor:
        a, b = m.a(x).chunk(2, 1)
        return a * b.sigmoid()

    return Step(12, run, a=conv(width, 24))


def squeezed(width: int) -> Step:
    def run(m: Step, x: Tensor) -> Tensor:
        return x * m.b(m.a(x.mean((2, 3), keepdim=True)).relu()).sigmoid()

    return Step(width, run, a=nn.Conv2d(width, 6, 1), b=nn.Conv2d(6, width, 1))


def shuffled(width: int) -> Step:
    def run(_: Step, x: Tensor) -> Tensor:
        return x.view(-1, 2, width // 2, *x.shape[2:]).transpose(1, 2).reshape(x.shape)

    return Step(width, run)


def halved(width: int) -> Step:
    """The first half, twice."""
    return Step(width, lambda _, x: torch.cat([x[:, : width // 2]] * 2, 1))


def attended(width: int) -> Step:
    """Pixels attend to each other, in two heads of two entries each and more."""

    def run(m: Step, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        heads = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in m.qkv(tokens).chunk(3, -1))
        y = functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        return x + m.out(y).transpose(1, 2).reshape(x.shape)

    return Step(width, run, qkv=nn.Linear(width, 24), out=nn.Linear(8, width))


STEPS: dict[str, Callable[[int], Step]] = {
    "conv": lambda width: Step(12, lambda m, x: m.a(x).relu(), a=conv(width, 12)),
    "depthwise": lambda width: Step(width, lambda m, x: m.a(x).sigmoid(), a=conv(width, width, width)),
    "grouped": lambda width: Step(8, lambda m, x: m.a(x), a=conv(width, 8, 4)),
    "batch norm": lambda width: Step(width, lambda m, x: m.a(x).tanh(), a=nn.BatchNorm2d(width)),
    "group norm": lambda width: Step(width, lambda m, x: m.a(x), a=nn.GroupNorm(4, width)),
    "flipped": lambda width: Step(width, lambda _, x: x.flip(1)),
    "rolled": lambda width: Step(width, lambda _, x: x.roll(3, 1)),
    "every other": lambda width: Step(width, lambda _, x: torch.cat([x[:, ::2], x[:, 1::2]], 1)),
    **{f.__name__: f for f in (residual, dense, gated, squeezed, shuffled, halved, attended)},
}


def network(names: list[str]) -> nn.Module:
    steps, width = [conv(3, 12)], 12
    for name in names:
        steps.append(STEPS[name](width))
        width = steps[-1].width
    return nn.Sequential(*steps, nn.Flatten(), nn.Linear(16 * width, 3))


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    names=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=5),
    share=st.sampled_from([0.2, 0.6, 0.95]),
    seed=st.integers(0, 9),
)
def test_removal_is_exact(names: list[str], share: float, seed: int) -> None:
    torch.manual_seed(seed)
    whole = captured(network(names), torch.randn(2, 3, 4, 4))
    channels = find_groups(whole.graph, whole.example)
    assert channels.groups or all(refusal.reason for refusal in channels.refused)
    assert removal(whole, partial(at_random, share, seed)).error < EXACT
