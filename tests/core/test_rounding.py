"""Activations in 8 bits, against the same in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hashcompile.core.rounding import round_affine, round_images, round_rows
from tests.runtime.chain_oracle import quantize
from tests.runtime.oracle import quantize as quantize_row

X = (
    torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    * torch.tensor([1, 0, 20, 1e-3])[:, None, None, None]
)


@pytest.mark.parametrize(("scale", "zero"), [(0.05, 128), (0.01, 0), (0.0, 0)])
@pytest.mark.parametrize("sign", [1, -1, 0])
def test_affine(scale: float, zero: int, sign: int) -> None:
    x = X if not sign else sign * X.abs()
    wanted = quantize(x.numpy(), np.float32(scale), np.float32(zero)).real
    step = scale or float(x.abs().max()) / 127
    got = round_affine(x, scale, zero).numpy()
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-7 * step * 255)
    assert (round_affine(torch.zeros_like(x), scale, zero) == 0).all()


def test_symmetric() -> None:
    for rounded, pieces in ((round_images(X), X), (round_rows(X), X.reshape(-1, 6))):
        wanted = []
        for piece in pieces.numpy():
            q, scale = quantize_row(piece)
            wanted.append(q * scale)
        np.testing.assert_allclose(rounded.numpy().reshape(pieces.shape), np.array(wanted), rtol=1e-6)


def test_nothing() -> None:
    empty = torch.zeros(0, 3, 4, 4)
    for got in (
        round_affine(empty, 0.0, 0),
        round_affine(empty, 0.1, 3),
        round_images(empty),
        round_rows(empty),
    ):
        assert got.shape == empty.shape
