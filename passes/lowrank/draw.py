"""Which columns of a product are drawn, and how often each of them counts.

With p_j in proportion to |w_j| |x_j|, c independent draws j_1 ... j_c give sum_t w_j x_j' / (c p_j), which is W X on
average, and loses

    E |W X - W' X|^2 = ((sum_j |w_j| |x_j|)^2 - |W X|^2) / c,

the least of all p (Drineas, Kannan & Mahoney 2006, "Fast Monte Carlo algorithms for matrices I"). It falls only as
1 / c, and c draws of m columns that are alike in size and at right angles lose (m - 1) / c times the product's energy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hashcompile.passes.lowrank.product import Product


def probabilities(product: Product) -> Tensor:
    """(m,) float64: norms of columns, all taps, times norms of inputs; even where nothing is to be computed."""
    columns = product.rows.square().sum((0, 2)).sqrt()
    norms = columns * product.channel_gram.diagonal().clamp_min(0).sqrt()
    total = norms.sum()
    return norms / total if total > 0 else torch.full_like(norms, 1 / len(norms))


def draw(product: Product, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """(columns, factors), (c,) each with c <= `count`: rising indices, and what their products are multiplied with."""
    chance = probabilities(product)
    source = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(chance, count, replacement=True, generator=source)
    columns, times = drawn.unique(return_counts=True)
    return columns, times / (count * chance[columns])
