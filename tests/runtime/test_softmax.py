"""Softmax and its logarithm against float64, and the same bits from every kernel."""

from __future__ import annotations

import numpy as np
import pytest

from hashcompile_runtime import kernels
from hashcompile_runtime._native import softmax
from tests.runtime import abi
from tests.runtime.guarded import PLACES, guarded
from tests.runtime.oracle import EPS

KERNELS = [kernel.isa for kernel in kernels() if kernel.runnable and kernel.name.startswith("softmax")]
COLUMNS = (1, 2, 31, 32, 33, 64, 65, 1000)
Desc = abi._native._SoftmaxDesc


def scores(rows, columns, size=10.0):
    return np.random.default_rng([rows, columns]).normal(scale=size, size=(rows, columns)).astype(np.float32)


def oracle(x, log):
    """-> y, and how far rounding may bring float32 from it."""
    x = x.astype(np.float64)
    moved = x - x.max(1, keepdims=True)
    sums = np.exp(moved).sum(1, keepdims=True)
    # a difference from the maximum is off by half an ulp of itself; a sum has n / 32 + 5 terms one behind another
    of_sum, of_difference = x.shape[1] / 32 + 10, np.abs(moved)
    if log:
        y = moved - np.log(sums)
        return y, EPS * (of_difference + of_sum + 2 * np.abs(y))
    y = np.exp(moved) / sums
    return y, EPS * y * (of_difference + of_sum) + 1e-44  # and denormals


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("isa", KERNELS)
def test_every_size(isa, columns, log):
    for size in (0.01, 1.0, 30.0):
        x = scores(7, columns, size)
        exact, bound = oracle(x, log)
        y = softmax(x, log=log, isa=isa)
        assert np.all(np.abs(y - exact) <= bound), np.abs(y - exact).max()


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("isa", KERNELS)
def test_the_same_bits_everywhere(isa, log):
    x = scores(300, 130)
    wanted = softmax(x, log=log, isa="scalar")
    for threads in (1, 2):
        y = softmax(x, log=log, isa=isa, threads=threads)
        np.testing.assert_array_equal(y.view(np.uint32), wanted.view(np.uint32))


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("isa", KERNELS)
def test_what_is_not_finite_stays_in_its_row(isa, log):
    x = scores(5, 70)
    clean = softmax(x, log=log, isa=isa)
    x[1, 69], x[2, 3], x[3] = np.nan, np.inf, -np.inf
    y = softmax(x, log=log, isa=isa)
    assert np.isnan(y[1:4]).all()
    np.testing.assert_array_equal(y[[0, 4]], clean[[0, 4]])


@pytest.mark.parametrize("isa", KERNELS)
def test_what_is_hidden_weighs_nothing(isa):
    x = scores(2, 40)
    x[:, 7:] = -np.inf
    y = softmax(x, isa=isa)
    assert np.all(y[:, 7:] == 0)
    exact, bound = oracle(x[:, :7], log=False)
    assert np.all(np.abs(y[:, :7] - exact) <= bound)


@pytest.mark.parametrize("isa", KERNELS)
@pytest.mark.parametrize("x", [[[3e38, -3e38, 3e38]], [[-3e38, -3e38, -3e38]]])
def test_the_largest_floats(isa, x):
    exact, _ = oracle(np.array(x, np.float32), log=False)
    np.testing.assert_allclose(softmax(x, isa=isa), exact, rtol=3 * EPS)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
def test_nothing(shape):
    assert softmax(np.zeros(shape)).shape == shape


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("isa", KERNELS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("columns", COLUMNS)
def test_no_byte_beside_the_rows_is_touched(isa, place, columns, log):
    x = guarded(scores(3, columns), place)
    y = guarded(np.full_like(x, np.nan), place)
    desc = Desc(abi.ctypes.sizeof(Desc), abi._native._isa_id(isa), 3, columns, log)
    abi.call("hc_softmax", abi.byref(desc), abi.pointer(x), abi.pointer(y), None)
    np.testing.assert_array_equal(y, softmax(scores(3, columns), log=log, isa=isa))


def test_what_makes_no_sense_is_refused():
    x = scores(2, 3)
    for change in ({"size": 0}, {"rows": -1}, {"columns": -1}, {"rows": 2**62}, {"reserved": 1}, {"isa": 99}):
        desc = Desc(abi.ctypes.sizeof(Desc), 0, 2, 3)
        for name, value in change.items():
            setattr(desc, name, value)
        assert abi.attempt("hc_softmax", abi.byref(desc), abi.pointer(x), abi.pointer(x), None) == 1
    desc = Desc(abi.ctypes.sizeof(Desc), 0, 2, 3)
    assert abi.attempt("hc_softmax", abi.byref(desc), None, abi.pointer(x), None) == 1
    assert abi.attempt("hc_softmax", None, abi.pointer(x), abi.pointer(x), None) == 1
