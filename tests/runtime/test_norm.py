"""Layer norm and RMS norm against float64, and the same bits from every kernel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashcompile_runtime import NativeError, kernels
from hashcompile_runtime._native import norm
from tests.runtime import abi
from tests.runtime.guarded import PLACES, guarded
from tests.runtime.oracle import EPS

KERNELS = [kernel.isa for kernel in kernels() if kernel.runnable and kernel.name.startswith("norm")]
COLUMNS = (1, 2, 15, 31, 32, 33, 63, 64, 65, 100, 384, 1000)


def values(rows, columns, seed=0):
    """x, residual, weight, bias; rows with means of their own."""
    rng = np.random.default_rng([seed, rows, columns])
    x, residual = rng.normal(rng.normal(size=(2, rows, 1)), size=(2, rows, columns)).astype(np.float32)
    weight, bias = rng.normal(size=(2, columns)).astype(np.float32)
    return x, residual, weight, bias


def oracle(s, weight, bias, epsilon, centered):
    """-> y, and how far rounding may bring float32 from it."""
    s, weight = s.astype(np.float64), weight.astype(np.float64)
    n = s.shape[1]
    moved = s - s.mean(1, keepdims=True) if centered else s
    inverse = 1 / np.sqrt((moved**2).mean(1, keepdims=True) + epsilon)
    y = moved * inverse * weight + (0 if bias is None else bias)
    # a sum of n terms in 32 parts; the mean is off by that of the largest value, all else by a few roundings of itself
    sums = n / 32 + 12
    off_mean = sums * np.abs(s).max(1, keepdims=True) * inverse * np.abs(weight) if centered else 0
    return y, EPS * (off_mean + sums * np.abs(moved * inverse * weight) + 2 * np.abs(y))


@pytest.mark.parametrize("isa", KERNELS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    rows=st.sampled_from((1, 2, 7, 40)),
    columns=st.sampled_from(COLUMNS),
    centered=st.booleans(),
    biased=st.booleans(),
    added=st.booleans(),
    epsilon=st.sampled_from((1e-12, 1e-5, 0.5)),
)
def test_every_size(isa, rows, columns, centered, biased, added, epsilon):
    x, residual, weight, bias = values(rows, columns)
    bias = bias if biased else None
    y = norm(x, weight, bias, residual if added else None, epsilon=epsilon, centered=centered, isa=isa)
    exact, bound = oracle(x + residual if added else x, weight, bias, epsilon, centered)
    if columns == 1 and centered:  # nothing but the bias remains
        np.testing.assert_array_equal(y, np.broadcast_to(0 if bias is None else bias, y.shape))
    else:
        assert np.all(np.abs(y - exact) <= bound), np.abs(y - exact).max()


@pytest.mark.parametrize("isa", KERNELS)
@pytest.mark.parametrize("centered", [True, False])
def test_without_a_weight_it_is_one(isa, centered):
    for columns in COLUMNS:
        x, residual, *_ = values(5, columns)
        for added in (None, residual):
            y = norm(x, None, None, added, epsilon=1e-5, centered=centered, isa=isa)
            ones = norm(x, np.ones(columns), None, added, epsilon=1e-5, centered=centered, isa=isa)
            np.testing.assert_array_equal(y, ones)
    with pytest.raises(NativeError, match="a bias without a weight"):
        norm(x, None, np.ones(columns), epsilon=1e-5, isa=isa)


@pytest.mark.parametrize("isa", KERNELS)
@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("centered", [True, False])
def test_the_same_bits_everywhere(isa, columns, centered):
    x, residual, weight, bias = values(50, columns)
    wanted = norm(x, weight, bias, residual, epsilon=1e-5, centered=centered, isa="scalar")
    for threads in (1, 2):
        y = norm(x, weight, bias, residual, epsilon=1e-5, centered=centered, isa=isa, threads=threads)
        np.testing.assert_array_equal(y.view(np.uint32), wanted.view(np.uint32))


@pytest.mark.parametrize("isa", KERNELS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_row(isa, bad):
    x, residual, weight, bias = values(3, 70)
    clean = norm(x, weight, bias, residual, epsilon=1e-5, isa=isa)
    x[1, 69] = bad
    y = norm(x, weight, bias, residual, epsilon=1e-5, isa=isa)
    assert np.isnan(y[1]).all()
    np.testing.assert_array_equal(y[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("isa", KERNELS)
def test_a_large_mean_does_not_drown_the_variance(isa):
    """Mean of squares minus square of the mean would leave nothing: 1e8 + 1 is 1e8 in float32."""
    x = np.float32(1e4) + np.arange(64, dtype=np.float32)[None] / 64
    y = norm(x, np.ones(64), epsilon=0, isa=isa)
    exact, bound = oracle(x, np.ones(64, np.float32), None, 0, True)
    assert np.all(np.abs(y - exact) <= bound)
    np.testing.assert_allclose(y, exact, atol=1e-2)


@pytest.mark.parametrize("isa", KERNELS)
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
def test_nothing(isa, shape):
    assert norm(np.zeros(shape), np.ones(shape[1]), epsilon=0, isa=isa).shape == shape


@pytest.mark.parametrize("isa", KERNELS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("columns", COLUMNS)
def test_no_byte_beside_the_rows_is_touched(isa, place, columns):
    x, residual, weight, bias = (guarded(array, place) for array in values(3, columns))
    y = guarded(np.full_like(x, np.nan), place)
    kind = abi._native._NormDesc
    desc = kind(abi.ctypes.sizeof(kind), abi._native._isa_id(isa), 3, columns, 1, 1e-5)
    desc.weight, desc.bias = abi.pointer(weight), abi.pointer(bias)
    abi.call("hc_norm", abi.byref(desc), *map(abi.pointer, (x, residual, y)), None)
    assert np.isfinite(y).all()


@pytest.mark.parametrize("epsilon", [-1e-5, np.nan])
def test_an_epsilon_below_zero_is_refused(epsilon):
    with pytest.raises(NativeError, match="epsilon is"):
        norm(np.ones((2, 3)), np.ones(3), epsilon=epsilon)
