"""Weights that undo, as far as a layer can, what the layers before it lost.

Once its prefix is encoded, a layer sees inputs X~ where it saw X. Of all weights, those that come closest to the old
outputs W x on the new inputs, without leaving W further than that pays for, are

    W* = argmin |X W' - X~ W*'|^2 + ridge |W* - W|^2 = W + W (X'X~ - X~'X~) (X~'X~ + ridge I)^-1

and fitting a codebook to W* under the gram X~'X~ is then fitting it to the old outputs (asymmetric calibration:
GPTAQ, Li et al. 2025, arXiv 2504.02692).
"""

from __future__ import annotations

import torch
from torch import Tensor

from hashcompile.core.parallel import one_thread


def compensate(
    rows: Tensor, gram: Tensor, cross: Tensor, ridge: float = 0.01, prior: Tensor | None = None
) -> Tensor:
    """W* for `rows` W: (N, K), as (N, K) of their precision.

    The layer may have lost inputs, K~ of K being left; then W* is held to a `prior` instead of W:
    W* = (W X'X~ + ridge P) (X~'X~ + ridge I)^-1, (N, K~).

    Args:
        gram: (K~, K~), X~'X~ of the layer's inputs behind the compressed prefix.
        cross: (K, K~), X'X~; row i belongs to input i of the original model, on the same samples.
        ridge: as a share of the gram's mean diagonal.
        prior: (N, K~), W if it is None.
    """
    with one_thread():
        form = gram.double()
        mean = form.diagonal().mean()
        held = rows if prior is None else prior
        if not mean > 0:
            return held.clone()
        # W + W (C - H) F^-1 with F = H + ridge is (W C + ridge W) F^-1.
        unit = rows.abs().max().double().clamp(min=torch.finfo(torch.float64).tiny)
        old = rows.double() / unit
        form = form / mean + ridge * torch.eye(len(form), dtype=form.dtype)
        moved = old @ (cross.double() / mean) + ridge * (held.double() / unit)
        return (torch.linalg.solve(form, moved.T).T * unit).to(rows.dtype)
