"""How far the moments of few samples are to be trusted.

Codes fitted to the gram of a handful of samples are right on those samples and worse than data-free elsewhere. Both
estimators here know from the moments alone how much of them is noise, and take that share away:

- the gram is drawn towards a multiple of the identity, which is what fitting the weights alone means (oracle
  approximating shrinkage: Chen, Wiesel, Eldar & Hero 2010, arXiv 0907.4698);
- the mean is drawn towards zero, which corrects no bias (James & Stein 1961, the positive part).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hashcompile.core.method import Statistics


def noise_share(gram: Tensor, samples: float) -> Tensor:
    """(S,) of `gram: (S, K, K)`, from 0 (trust it) to 1 (as good as no data), for so many independent samples."""
    columns = gram.shape[-1]
    trace = gram.diagonal(dim1=1, dim2=2).sum(1)
    scaled = gram / torch.where(trace > 0, trace, 1.0)[:, None, None]
    squares = scaled.square().sum(
        (1, 2)
    )  # 1 / (directions that the inputs really fill), as seen in the sample
    uneven = squares - 1 / columns
    share = ((1 - 2 / columns) * squares + 1) / ((samples + 1 - 2 / columns) * uneven)
    return torch.where((trace > 0) & (uneven > 0), share, 1.0).clamp(0, 1)


def shrunk(gram: Tensor, share: Tensor) -> Tensor:
    """`gram: (S, K, K)` with `share: (S,)` of its energy spread evenly over all directions."""
    columns = gram.shape[-1]
    even = (share * gram.diagonal(dim1=1, dim2=2).mean(1))[:, None, None]
    return (1 - share)[:, None, None] * gram + even * torch.eye(columns, dtype=gram.dtype)


def signal_share(energy: Tensor, mean: Tensor, count: int, samples: float) -> Tensor:
    """(S,): what to multiply `mean: (S, K)` of `count` samples with, of which `samples` are independent; `energy: (S,)`
    is the sum of their squares."""
    if samples <= 1:
        return torch.zeros(len(mean), dtype=mean.dtype)
    length = mean.square().sum(1)
    spread = (energy / max(1, count) - length).clamp_min(0)
    noise = spread / (samples - 1)
    return torch.where(length > 0, 1 - noise / length, 0.0).clamp(0, 1)


def centred(known: Statistics) -> Statistics:
    """The statistics of X - m and X0 - m0, with m and m0 the means as far as they are to be trusted."""
    gram, cross, mean, mean_before = known.gram, known.cross, known.mean, known.mean_before
    assert gram is not None and cross is not None and mean is not None and mean_before is not None
    energy = gram.diagonal(dim1=1, dim2=2).sum(1)
    signal = signal_share(energy, mean, known.count, known.independent)[:, None]
    # sum (x0 - a m0)(x - a m)' = C - (2 a - a^2) count m0 m'
    around = known.count * (2 * signal - signal.square())[:, :, None]
    return replace(
        known,
        gram=gram - around * mean.unsqueeze(2) * mean.unsqueeze(1),
        cross=cross - around * mean_before.unsqueeze(2) * mean.unsqueeze(1),
        mean=signal * mean,
        mean_before=signal * mean_before,
    )
