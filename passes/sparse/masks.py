"""Which weights stay: masks (N, K) bool from scores (N, K), of which the largest stay."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def of_share(scores: Tensor, amount: float) -> Tensor:
    """All but the least `amount` of the scores, rounded to whole weights; of equals, the later ones go. One stays."""
    return keep_most(scores.reshape(1, -1), left_of(scores.numel(), amount)).reshape(scores.shape)


def of_rows(scores: Tensor, amount: float) -> Tensor:
    """The same in every row."""
    return keep_most(scores, left_of(scores.shape[1], amount))


def left_of(count: int, amount: float) -> int:
    """How many are left; a share below 1 leaves one of any."""
    return min(count, max(1, count - round(amount * count)))


def of_pattern(scores: Tensor, kept: int, of: int) -> Tensor:
    """The best `kept` of every `of` consecutive columns; a last, shorter run keeps as many, if it has them."""
    rows, columns = scores.shape
    short = -columns % of
    padded = torch.nn.functional.pad(scores.double(), (0, short), value=-torch.inf)
    mask = keep_most(padded.reshape(-1, of), kept).reshape(rows, -1)
    return mask[:, :columns]


def of_all(scores: Mapping[str, Tensor], amount: float) -> dict[str, Tensor]:
    """The same of the weights of all layers together, except that the best of every layer stays: one without weights
    lets nothing through (layer collapse: Tanaka et al. 2020, arXiv 2006.05467; so does LAMP, arXiv 2010.07611)."""
    flat = {name: each.double().flatten() for name, each in scores.items()}
    best = {name: keep_most(each[None], 1)[0] for name, each in flat.items()}
    joined = torch.cat([each.masked_fill(best[name], torch.inf) for name, each in flat.items()])
    parts = of_share(joined, amount).split([each.numel() for each in flat.values()])
    return {
        name: (part | best[name]).reshape(scores[name].shape) for name, part in zip(flat, parts, strict=True)
    }


def keep_most(scores: Tensor, count: int) -> Tensor:
    """The `count` largest of every row."""
    order = scores.double().argsort(dim=1, descending=True, stable=True)
    mask = torch.zeros_like(scores, dtype=torch.bool)
    return mask.scatter_(1, order[:, :count], True)
