"""Pools of images with channels last, against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from hashcompile_runtime import NativeError, kernels
from hashcompile_runtime._native import pool
from tests.runtime import abi
from tests.runtime.guarded import PLACES, guarded
from tests.runtime.oracle import EPS, activations

ROWWISE = [kernel.isa for kernel in kernels() if kernel.runnable and kernel.name.startswith("rowwise")]

# channels, (H, W), kernel, strides, pads (top, left, bottom, right), dilations
SHAPES = [
    (64, (9, 11), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    (1, (4, 5), (2, 2), (2, 2), (0, 0, 0, 0), (1, 1)),
    (65, (6, 6), (2, 3), (1, 2), (0, 1, 1, 0), (1, 1)),
    (33, (8, 7), (3, 2), (2, 1), (1, 0, 0, 1), (2, 3)),
    (130, (5, 7), (5, 7), (1, 1), (0, 0, 0, 0), (1, 1)),
    (3, (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
]


def taps(x, kernel, strides, pads, dilations):
    """(B, OH, OW, kh * kw, C) in float64, NaN for a place beyond the image."""
    top, left, bottom, right = pads
    wide = np.pad(
        x.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=np.nan
    )
    sizes = [
        (size - (k - 1) * d - 1) // s + 1
        for size, k, d, s in zip(wide.shape[1:3], kernel, dilations, strides, strict=True)
    ]
    every = [
        wide[
            :,
            i * dilations[0] : i * dilations[0] + (sizes[0] - 1) * strides[0] + 1 : strides[0],
            j * dilations[1] : j * dilations[1] + (sizes[1] - 1) * strides[1] + 1 : strides[1],
        ]
        for i, j in np.ndindex(*kernel)
    ]
    return np.stack(every, axis=3)


@pytest.mark.parametrize("isa", ROWWISE)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pool(shape, isa):
    channels, size, *window = shape
    x = activations(2, *size, channels)
    seen = taps(x, *window)
    for threads in (1, 2):
        np.testing.assert_array_equal(pool(x, *window, isa=isa, threads=threads), np.nanmax(seen, axis=3))
    total, size = np.nansum(seen, axis=3), np.nansum(np.abs(seen), axis=3)
    count = np.isfinite(seen).sum(axis=3)
    for counted, divisor in ((False, count), (True, seen.shape[3])):
        y = pool(x, *window, average=True, counts_padding=counted, isa=isa)
        # count - 1 additions, and the division
        assert np.all(np.abs(y - total / divisor) <= EPS * (count + 1) * size / divisor)


@pytest.mark.parametrize("isa", ROWWISE)
@pytest.mark.parametrize("place", range(4))
def test_a_maximum_is_nan_where_one_is(place, isa):
    x = activations(1, 2, 2, 70)
    x[0, place // 2, place % 2, ::3] = np.nan
    (y,) = pool(x, (2, 2), isa=isa).reshape(1, -1)
    np.testing.assert_array_equal(np.isnan(y), np.arange(70) % 3 == 0)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("average", [False, True])
def test_nothing_else_is_touched(place, average):
    for channels, size, *window in SHAPES:
        x = guarded(activations(2, *size, channels), place)
        wanted = pool(x, *window, average=average)
        y = guarded(np.full(wanted.shape, np.nan, np.float32), place)
        desc = abi.pool_desc(x.shape, *window, kind=average)
        abi.call("hc_pool", abi.byref(desc), abi.pointer(x), abi.pointer(y), None)
        np.testing.assert_array_equal(y, wanted)


def test_an_empty_batch_is_none():
    assert pool(np.empty((0, 4, 4, 8), np.float32), (2, 2)).shape == (0, 3, 3, 8)


def test_what_makes_no_sense_is_refused():
    x = activations(1, 4, 4, 8)
    with pytest.raises(NativeError, match="sees nothing"):
        pool(x, (1, 1), pads=(1, 0, 0, 0))
    for change in ({"kind": 2}, {"kind": -1}, {"size": 0}):
        desc = abi.pool_desc(x.shape, (2, 2))
        for name, value in change.items():
            setattr(desc, name, value)
        assert abi.attempt("hc_pool", abi.byref(desc), abi.pointer(x), abi.pointer(x), None) == 1
    assert abi.attempt("hc_pool", abi.byref(abi.pool_desc(x.shape, (2, 2))), None, None, None) == 1
