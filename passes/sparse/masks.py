"""Which weights stay: masks (N, K) bool from scores (N, K), of which the largest stay."""

from __future__ import annotations

import torch
from torch import Tensor


def of_share(scores: Tensor, amount: float) -> Tensor:
    """All but the least `amount` of the scores, rounded to whole weights; of equals, the later ones go."""
    gone = round(amount * scores.numel())
    return keep_most(scores.reshape(1, -1), scores.numel() - gone).reshape(scores.shape)


def of_rows(scores: Tensor, amount: float) -> Tensor:
    """The same in every row."""
    return keep_most(scores, scores.shape[1] - round(amount * scores.shape[1]))


def of_pattern(scores: Tensor, kept: int, of: int) -> Tensor:
    """The best `kept` of every `of` consecutive columns; a last, shorter run keeps as many, if it has them."""
    rows, columns = scores.shape
    short = -columns % of
    padded = torch.nn.functional.pad(scores.double(), (0, short), value=-torch.inf)
    mask = keep_most(padded.reshape(-1, of), kept).reshape(rows, -1)
    return mask[:, :columns]


def keep_most(scores: Tensor, count: int) -> Tensor:
    """The `count` largest of every row."""
    order = scores.double().argsort(dim=1, descending=True, stable=True)
    mask = torch.zeros(scores.shape, dtype=torch.bool)
    return mask.scatter_(1, order[:, :count], True)
