"""Products of activations against float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hashcompile_runtime import kernels
from hashcompile_runtime._native import matmul
from tests.runtime import abi
from tests.runtime.guarded import PLACES, guarded
from tests.runtime.oracle import EPS, activations

NAMES = {kernel.name: kernel.isa for kernel in kernels() if kernel.runnable}
KERNELS = [isa for name, isa in NAMES.items() if name == f"attention_{isa}"]
SIZES = list(itertools.product((1, 2), (1, 31, 33, 64), (1, 7, 40), (1, 17, 65)))
Desc = abi._native._MatMulDesc


def operands(batch, rows, inner, columns):
    return activations(batch, rows, inner), activations(batch, inner, columns, seed=1)


@pytest.mark.parametrize("isa", KERNELS)
def test_every_size(isa):
    for size in SIZES:
        x, w = operands(*size)
        wide, other = x.astype(np.float64), w.astype(np.float64)
        bound = EPS * (size[2] + 1) * (np.abs(wide) @ np.abs(other))
        plain = matmul(x, w, isa=isa, threads=2)
        turned = matmul(x, np.ascontiguousarray(w.swapaxes(1, 2)), transposed=True, isa=isa)
        for y in (plain, turned):
            assert np.all(np.abs(y - wide @ other) <= bound), size


@pytest.mark.parametrize("isa", KERNELS)
def test_more_columns_than_a_block(isa):
    x, w = operands(1, 3, 4, 2500)
    np.testing.assert_allclose(matmul(x, w, isa=isa), x @ w, rtol=1e-5, atol=1e-5)
    turned = matmul(x, np.ascontiguousarray(w.swapaxes(1, 2)), transposed=True, isa=isa)
    np.testing.assert_array_equal(turned, matmul(x, w, isa=isa))


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 4, 0)])
def test_nothing(shape):
    x, w = operands(*shape)
    assert matmul(x, w).shape == (*shape[:2], shape[3])


def test_a_sum_of_nothing_is_zero():
    x, w = operands(2, 3, 0, 5)
    np.testing.assert_array_equal(matmul(x, w), np.zeros((2, 3, 5)))


@pytest.mark.parametrize("isa", KERNELS)
def test_nan_stays_in_its_row(isa):
    x, w = operands(1, 40, 9, 20)
    clean = matmul(x, w, isa=isa)
    x[0, 33, 4] = np.nan
    y = matmul(x, w, isa=isa)
    assert np.isnan(y[0, 33]).all()
    others = np.arange(40) != 33
    np.testing.assert_array_equal(y[0, others], clean[0, others])


@pytest.mark.parametrize("isa", KERNELS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("transposed", [False, True])
def test_nothing_else_is_touched(place, isa, transposed):
    for size in SIZES[::5]:
        x, w = (guarded(array, place) for array in operands(*size))
        w = w.reshape(size[0], size[3], size[2]) if transposed else w
        wanted = matmul(x, w, transposed=transposed, isa=isa)
        y = guarded(np.full(wanted.shape, np.nan, np.float32), place)
        desc = Desc(abi.ctypes.sizeof(Desc), abi._native._isa_id(isa), *size, transposed)
        abi.call("hc_matmul", abi.byref(desc), *map(abi.pointer, (x, w, y)), None)
        np.testing.assert_array_equal(y, wanted)


def test_what_makes_no_sense_is_refused():
    x, w = operands(2, 3, 4, 5)
    changes = [
        {"size": 0},
        {"reserved": 1},
        {"isa": 99},
        {"columns": 2**62},
        {"inner": 2**40, "columns": 2**40},
    ]
    for change in [*changes, *({name: -1} for name in ("batch", "rows", "inner", "columns"))]:
        desc = Desc(abi.ctypes.sizeof(Desc), 0, 2, 3, 4, 5)
        for name, value in change.items():
            setattr(desc, name, value)
        assert abi.attempt("hc_matmul", abi.byref(desc), *map(abi.pointer, (x, w, x)), None) == 1, change
    desc = Desc(abi.ctypes.sizeof(Desc), 0, 2, 3, 4, 5)
    assert abi.attempt("hc_matmul", abi.byref(desc), None, abi.pointer(w), abi.pointer(x), None) == 1
    assert abi.attempt("hc_matmul", None, abi.pointer(x), abi.pointer(w), abi.pointer(x), None) == 1
