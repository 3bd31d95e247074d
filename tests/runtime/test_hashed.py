"""Linear layers of hashed tiles against float64, with the hash written a second time."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_void_p

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashcompile_runtime import NativeError, kernels
from hashcompile_runtime._native import Hashed, _HashedDesc
from tests.runtime import abi
from tests.runtime.guarded import PLACES, guarded
from tests.runtime.oracle import EPS
from tests.runtime.test_hostile import INTEGERS, scalars

ISAS = [kernel.isa for kernel in kernels() if kernel.runnable and kernel.name.startswith("hashed_f32")]
SIZES = (1, 2, 15, 16, 17, 31, 33, 64, 100)


def mix(x):
    x = (x ^ (x >> 15)) * 0x5A827999 % 2**31
    x = (x ^ (x >> 13)) * 0x6ED9EBA1 % 2**31
    return x ^ (x >> 16)


def dense(values, N, K, seed):
    """(N, K), tile by tile."""
    tiles = values.reshape(-1, 16, 16)
    whole = np.zeros((-(-N // 16) * 16, -(-K // 16) * 16), np.float32)
    for i in range(len(whole) // 16):
        for j in range(whole.shape[1] // 16):
            h = mix(mix((2 * i + seed) % 2**31) ^ mix((2 * j + 1 + seed) % 2**31))
            tile = tiles[(h >> 1) * len(tiles) // 2**30].T
            whole[16 * i : 16 * i + 16, 16 * j : 16 * j + 16] = -tile if h & 1 else tile
    return whole[:N, :K]


def arrays(N, K, tiles=3, M=1):
    """x, values, scale, bias."""
    rng = np.random.default_rng([N, K, tiles, M])
    parts = rng.normal(size=(M, K)), rng.normal(size=256 * tiles), rng.uniform(0.5, 2, N), rng.normal(size=N)
    return [part.astype(np.float32) for part in parts]


def check(y, x, weight, scale, bias):
    weight = weight.astype(np.float64) * scale[:, None]
    exact = x.astype(np.float64) @ weight.T + bias
    size = np.abs(x).astype(np.float64) @ np.abs(weight).T
    bound = EPS * ((x.shape[1] + 3) * size + 2 * np.abs(bias)) + 1e-37
    assert (np.abs(y - exact) <= bound).all()


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    M=st.sampled_from((1, 2, 3, 5, 8, 9, 65, 130)),
    N=st.sampled_from(SIZES),
    K=st.sampled_from(SIZES),
    tiles=st.sampled_from((1, 2, 7)),
    seed=st.sampled_from((0, 1, 12345, 2**31 - 1)),
    plain=st.booleans(),
    threads=st.sampled_from((1, 2)),
)
def test_every_size(isa, M, N, K, tiles, seed, plain, threads):
    x, values, scale, bias = arrays(N, K, tiles, M)
    more = (None, None) if plain else (scale, bias)
    y = Hashed(values, *more, shape=(N, K), seed=seed, isa=isa).linear(x, threads)
    scale, bias = (np.ones(N), np.zeros(N)) if plain else (scale, bias)
    check(y, x, dense(values, N, K, seed), scale, bias)


@pytest.mark.parametrize("isa", ISAS)
def test_the_weight_read_out_is_exact(isa):
    """By an identity: another tile or sign anywhere would show."""
    _, values, scale, _ = arrays(70, 90, 5)
    y = Hashed(values, shape=(70, 90), seed=7, isa=isa).linear(np.eye(90))
    np.testing.assert_array_equal(y.T, dense(values, 70, 90, 7))
    half = Hashed(values, [0.5], shape=(70, 90), seed=7, isa=isa).linear(np.eye(90))
    np.testing.assert_array_equal(half, y / 2)
    scaled = Hashed(values, scale, shape=(70, 90), seed=7, isa=isa).linear(np.eye(90))
    np.testing.assert_array_equal(scaled.T, dense(values, 70, 90, 7) * scale[:, None])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_row(isa, bad):
    x, values, scale, bias = arrays(40, 33, M=3)
    weight = Hashed(values, scale, bias, shape=(40, 33), seed=3, isa=isa)
    clean = weight.linear(x)
    x[1, 20] = bad
    y = weight.linear(x)
    assert not np.isfinite(y[1]).any()
    np.testing.assert_array_equal(y[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize(("M", "N", "K"), [(0, 5, 3), (3, 0, 2), (2, 5, 0)])
def test_nothing(M, N, K):
    y = Hashed(np.ones(256), None, np.arange(N), shape=(N, K), seed=0).linear(np.zeros((M, K)))
    np.testing.assert_array_equal(y, np.broadcast_to(np.arange(N), (M, N)))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("M", [1, 2, 7, 9])
@pytest.mark.parametrize(("N", "K"), [(1, 1), (17, 33), (16, 16), (31, 15)])
def test_no_byte_beside_the_arrays_is_touched(isa, place, M, N, K):
    x, values, scale, bias = (guarded(array, place) for array in arrays(N, K, M=M))
    weight = Hashed(values, scale, bias, shape=(N, K), seed=1, isa=isa)
    y = guarded(np.full((M, N), np.nan, np.float32), place)
    abi.call("hc_hashed_linear", weight._handle, abi.pointer(x), M, abi.pointer(y), None)
    check(y, x, dense(values, N, K, 1), scale, bias)


def good():
    """A desc and its arrays, which live as long as it does."""
    _, values, scale, bias = arrays(40, 33)
    desc = _HashedDesc(size=ctypes.sizeof(_HashedDesc), rows=40, columns=33, seed=5)
    for name, array in (("values", values), ("scale", scale), ("bias", bias)):
        setattr(desc, name, abi.pointer(array))
        setattr(desc, f"{name}_len", array.size)
    desc.keep = values, scale, bias
    return desc


def attempt(desc):
    handle = c_void_p()
    code = abi.attempt("hc_hashed_open", byref(desc), byref(handle))
    assert bool(handle) == (code == 0)
    abi.LIBRARY.hc_hashed_close(handle)
    return code


def test_the_good_one_opens():
    assert attempt(good()) == 0


@pytest.mark.parametrize("name", scalars(_HashedDesc))
def test_every_number_of_a_desc(name):
    fits = {"scale_len": (1,), "isa": range(11), "columns": range(256), "seed": range(2**31)}
    for value in scalars(_HashedDesc)[name]:
        desc = good()
        before = getattr(desc, name)
        setattr(desc, name, value)
        now = getattr(desc, name)
        if name == "values_len" and now > before:
            continue  # no library can know
        assert (attempt(desc) == 0) == (now == before or now in fits.get(name, ())), value


@pytest.mark.parametrize("name", ["values", "scale", "bias"])
def test_every_array_of_a_desc(name):
    desc = good()
    setattr(desc, name, None)
    assert (attempt(desc) == 0) == (name != "values")


def test_no_matrix_is_larger_than_its_values_allow():
    for shape in ((4096, 256), (1, 1 << 20), (1 << 20, 1)):
        Hashed(np.ones(256), shape=shape, seed=0)
    for shape in ((4097, 256), (1, (1 << 20) + 4096), (1 << 40, 1), (1 << 62, 1 << 62), (0, 1 << 62)):
        with pytest.raises(NativeError, match=r"256 values for a weight|overflows"):
            Hashed(np.ones(256), shape=shape, seed=0)


def test_nothing_at_all():
    handle = c_void_p()
    assert abi.attempt("hc_hashed_open", None, byref(handle)) == 1
    assert abi.attempt("hc_hashed_open", byref(good()), None) == 1
    assert abi.attempt("hc_hashed_linear", None, None, 1, None, None) == 1
    weight = Hashed(np.ones(256), shape=(40, 24), seed=0)
    for m in (1, *(value for value in INTEGERS if value > 0)):
        assert abi.attempt("hc_hashed_linear", weight._handle, None, m, None, None) == 1
    abi.LIBRARY.hc_hashed_close(None)
