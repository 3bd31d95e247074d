"""Activations of values that no product made: the same bits as behind one."""

from __future__ import annotations

import numpy as np
import pytest

from hashcompile_runtime import NativeError, kernels
from hashcompile_runtime._native import ACTIVATIONS, Epilogue, activate
from tests.runtime import abi
from tests.runtime.guarded import PLACES, guarded
from tests.runtime.oracle import EPS, float64_activation

ROWWISE = [kernel.isa for kernel in kernels() if kernel.runnable and kernel.name.startswith("rowwise")]
COUNTS = (1, 15, 16, 17, 1023, 1024, 1025, 40_000)


def values(count):
    return np.random.default_rng(count).normal(scale=4, size=count).astype(np.float32)


@pytest.mark.parametrize("isa", ROWWISE)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation(name, isa):
    for count in COUNTS:
        x, residual = values(count), values(count + 1)[1:]
        for of, added in ((None, x), (residual, x + residual)):
            y = activate(x, Epilogue(name, -1.0, 2.5, of), isa=isa)
            exact = float64_activation(name, added, -1.0, 2.5)
            # 5 ulp of erf or tanh, and a few roundings
            assert np.all(np.abs(y - exact) <= 16 * EPS * (np.abs(exact) + np.abs(added)) + 1e-37), count
            wanted = activate(x, Epilogue(name, -1.0, 2.5, of), isa="scalar", threads=2)
            np.testing.assert_array_equal(y.view(np.uint32), wanted.view(np.uint32))


@pytest.mark.parametrize("isa", ROWWISE)
@pytest.mark.parametrize("place", PLACES)
def test_nothing_else_is_touched(place, isa):
    for count in COUNTS[:-1]:
        x = guarded(values(count), place)
        y = guarded(np.full_like(x, np.nan), place)
        epilogue = abi._native._epilogue(Epilogue("gelu", residual=x), y)
        abi.call(
            "hc_activate", abi._native._isa_id(isa), epilogue, abi.pointer(x), count, abi.pointer(y), None
        )
        np.testing.assert_array_equal(y, activate(x, Epilogue("gelu", residual=x)))


def test_nan_stays():
    for name in ACTIVATIONS:
        assert np.isnan(activate([np.nan, 1.0], Epilogue(name, -1.0, 1.0))).tolist() == [True, False]


def test_what_makes_no_sense_is_refused():
    with pytest.raises(NativeError, match="a clip to"):
        activate([1.0], Epilogue("clip", 2.0, 1.0))
    x = values(3)
    assert activate(np.empty((0, 3)), Epilogue("gelu")).shape == (0, 3)
    epilogue = abi._native._epilogue(Epilogue("gelu"), x)
    assert abi.attempt("hc_activate", 0, epilogue, None, 3, abi.pointer(x), None) == 1
    assert abi.attempt("hc_activate", 0, epilogue, abi.pointer(x), 2**62, abi.pointer(x), None) == 1
