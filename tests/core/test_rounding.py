"""Activations in 8 bits, against the same in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hashcompile.core.rounding import round_affine, round_attention, round_images, round_rows
from hashcompile_runtime._native import INT8, attention
from tests.runtime.chain_oracle import quantize
from tests.runtime.oracle import quantize as quantize_row
from tests.runtime.test_attention import mask_of, oracle, tensors

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


@pytest.mark.parametrize("kind", ["none", "keys", "float full"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "shape", [(2, 4, 2, 128, 128, 32, 32), (1, 3, 3, 9, 300, 16, 5), (1, 1, 1, 7, 40, 8, 8)]
)
def test_attention(kind: str, causal: bool, shape: tuple[int, ...]) -> None:
    """As the kernels round it, but for weights that lie between two whole numbers: a quarter of what rounding costs."""
    q, k, v = tensors(*shape)
    mask = mask_of(kind, shape[0], shape[1], shape[3], shape[4])
    exact = oracle(q, k, v, mask, 0.3, causal)
    kernel = attention(q, k, v, mask, scale=0.3, causal=causal, compute=INT8)
    given = [None if x is None else torch.from_numpy(np.ascontiguousarray(x)) for x in (q, k, v, mask)]
    y = round_attention(*given, scale=0.3, causal=causal, safe=True, token_major=causal)  # type: ignore[arg-type]
    assert y.transpose(1, 2).is_contiguous() == (causal or shape[1] == 1)
    got = y.transpose(1, 2).flatten(2).numpy()
    assert np.linalg.norm(got - kernel) <= np.linalg.norm(exact - kernel) / 4 + 1e-6 * np.linalg.norm(exact)


def test_attention_of_queries_that_see_nothing() -> None:
    q, k, v = (torch.ones(1, 1, size, 4) for size in (9, 9, 9))
    mask = torch.ones(9, 9, dtype=torch.bool)
    mask[3] = False
    for safe, hidden in ((True, 0.0), (False, torch.nan)):
        got = round_attention(q, k, v, mask, scale=1.0, causal=False, safe=safe, token_major=False)
        torch.testing.assert_close(got[0, 0, 3], torch.full((4,), hidden), equal_nan=True)
        torch.testing.assert_close(got[0, 0, 4], torch.ones(4))
    nothing = round_attention(
        q, k[:, :, :0], v[:, :, :0], None, scale=1.0, causal=False, safe=False, token_major=True
    )
    assert (nothing == 0).all()
