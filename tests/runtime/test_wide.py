"""Wide layers against float64: which rows are candidates, to the bit, and what these give."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_void_p

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashcompile_runtime import NativeError, kernels
from hashcompile_runtime._native import _FLOATS, Wide, _WideDesc
from tests.runtime import abi
from tests.runtime.guarded import PLACES, guarded
from tests.runtime.oracle import EPS
from tests.runtime.test_hostile import INTEGERS, scalars

ISAS = [kernel.isa for kernel in kernels() if kernel.runnable and kernel.name.startswith("wide")]
ROWS = (1, 2, 15, 16, 31, 33, 63, 64, 65, 511, 512, 513, 1100)
COLUMNS = (1, 2, 15, 31, 32, 33, 100)
BITS = (8, 16, 64, 72, 256, 512)


def values(N, K, bits, seed=0):
    """Arguments of a Wide, the limits such that some rows are near, some always and some never."""
    rng = np.random.default_rng([seed, N, K, bits])
    weight, bias = rng.normal(size=(N, K)), rng.normal(size=N)
    planes, start = rng.normal(size=(K, bits)), rng.normal(size=bits)
    sketches = rng.integers(0, 256, (bits // 8, N), np.uint8)
    limit = np.clip(rng.integers(bits // 2 - 8, bits // 2 + 8, N), 0, 254).astype(np.uint8)
    limit[::7], limit[3::7] = 255, 0
    floats = [array.astype(np.float32) for array in (weight, planes, start)]
    return [*floats, sketches, limit, bias.astype(np.float32)]


def signs(x, planes, start):
    """(M, bits) bool, in the order that the interface promises: each product and each sum rounded."""
    total = np.broadcast_to(start, (len(x), len(start))).astype(np.float32)
    for k in range(x.shape[1]):
        total = total + x[:, k : k + 1] * planes[k]
    return total >= 0


def candidates(x, planes, start, sketches, limit):
    """(M, N) bool."""
    mine = np.packbits(signs(x, planes, start), axis=1, bitorder="little")
    differ = np.unpackbits(mine[:, :, None] ^ sketches[None], axis=1).sum(1, dtype=np.int64)
    near = np.minimum(differ, 255) <= limit
    return near | ~near.any(1, keepdims=True)


def check(y, x, weight, near, bias):
    assert np.array_equal(np.isneginf(y), ~near)
    exact = x.astype(np.float64) @ weight.T.astype(np.float64) + bias
    size = np.abs(x).astype(np.float64) @ np.abs(weight).T.astype(np.float64) + np.abs(bias)
    assert (np.abs(y - exact) <= EPS * (x.shape[1] / 32 + 8) * size)[near].all()


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    M=st.sampled_from((1, 2, 5)),
    N=st.sampled_from(ROWS),
    K=st.sampled_from(COLUMNS),
    bits=st.sampled_from(BITS),
    biased=st.booleans(),
    threads=st.sampled_from((1, 2)),
)
def test_every_size(isa, M, N, K, bits, biased, threads):
    weight, planes, start, sketches, limit, bias = values(N, K, bits)
    x = np.random.default_rng([M, K]).normal(size=(M, K)).astype(np.float32)
    given_bias = bias if biased else None
    wide = Wide(weight, planes, start, sketches, limit, given_bias, isa=isa)
    y = wide.linear(x, threads)
    check(y, x, weight, candidates(x, planes, start, sketches, limit), bias if biased else np.zeros(N))
    scalar = Wide(weight, planes, start, sketches, limit, given_bias, isa="scalar").linear(x)
    np.testing.assert_array_equal(y.view(np.uint32), scalar.view(np.uint32))


def codes_of(N, K, code_bits, seed=0):
    """indices (N, K), and the arguments of a Wide with them: codes, table, scale."""
    rng = np.random.default_rng([seed, N, K, code_bits])
    indices = rng.integers(0, 2**code_bits, (N, K))
    table, scale = rng.normal(size=2**code_bits), rng.normal(size=N)
    columns = np.arange(K) * code_bits
    codes = np.zeros((N, -(-K * code_bits // 8)), np.uint8)
    for k, (byte, shift) in enumerate(zip(columns // 8, columns % 8, strict=True)):
        codes[:, byte] |= (indices[:, k] << shift).astype(np.uint8)
    return indices, {"codes": codes, "table": table.astype(np.float32), "scale": scale.astype(np.float32)}


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    M=st.sampled_from((1, 5)),
    N=st.sampled_from(ROWS),
    K=st.sampled_from((0, *COLUMNS, 64, 131)),
    code_bits=st.sampled_from((1, 2, 4, 8)),
    biased=st.booleans(),
    threads=st.sampled_from((1, 2)),
)
def test_rows_of_codes(isa, M, N, K, code_bits, biased, threads):
    _, planes, start, sketches, limit, bias = values(N, K, 64)
    indices, coded = codes_of(N, K, code_bits)
    x = np.random.default_rng([M, K]).normal(size=(M, K)).astype(np.float32)
    arguments = None, planes, start, sketches, limit, bias if biased else None
    y = Wide(*arguments, **coded, isa=isa).linear(x, threads)
    weight = coded["table"].astype(np.float64)[indices] * coded["scale"][:, None]
    check(y, x, weight, candidates(x, planes, start, sketches, limit), bias if biased else np.zeros(N))
    scalar = Wide(*arguments, **coded, isa="scalar").linear(x)
    np.testing.assert_array_equal(y.view(np.uint32), scalar.view(np.uint32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("code_bits", [1, 4, 8])
def test_no_byte_beside_the_codes_is_touched(isa, place, code_bits):
    _, *others, bias = (guarded(array, place) for array in values(65, 33, 72))
    indices, coded = codes_of(65, 33, code_bits)
    coded = {name: guarded(array, place) for name, array in coded.items()}
    x, y = guarded(np.ones((2, 33), np.float32), place), guarded(np.zeros((2, 65), np.float32), place)
    wide = Wide(None, *others, bias, **coded, isa=isa)
    assert np.shares_memory(wide._held[1]["codes"], coded["codes"])
    abi.call("hc_wide_linear", wide._handle, abi.pointer(x), 2, abi.pointer(y), None)
    weight = coded["table"].astype(np.float64)[indices] * coded["scale"][:, None]
    check(y, x, weight, candidates(x, *others), bias)


@pytest.mark.parametrize("isa", ISAS)
def test_distances_beyond_255(isa):
    """The sketch of x is all ones: distances are the zeros of a row."""
    bits, zeros = 1024, np.array([0, 1, 254, 255, 256, 300, 1024, 1023, 600] * 9)
    sketches = np.zeros((len(zeros), bits), bool)
    for row, count in zip(sketches, zeros, strict=True):
        row[count:] = True
    packed = np.packbits(sketches, axis=1, bitorder="little").T
    for limit in (0, 1, 253, 254, 255):
        arguments = np.ones((len(zeros), 1)), np.zeros((1, bits)), np.ones(bits), packed
        y = Wide(*arguments, np.full(len(zeros), limit), isa=isa).linear(np.ones((1, 1)))
        np.testing.assert_array_equal(y[0] == 1, np.minimum(zeros, 255) <= limit)


@pytest.mark.parametrize("isa", ISAS)
def test_where_none_is_near_all_are_computed(isa):
    weight, planes, start, sketches, _, bias = values(700, 20, 64)
    x = np.random.default_rng(0).normal(size=(3, 20)).astype(np.float32)
    mine = np.packbits(signs(x, planes, start), axis=1, bitorder="little")
    sketches[:] = ~mine[1][:, None]  # as far as can be from the second row, and from no other
    y = Wide(weight, planes, start, sketches, np.full(700, 20), bias, isa=isa).linear(x, threads=2)
    near = candidates(x, planes, start, sketches, np.full(700, 20))
    assert near[1].all()
    check(y, x, weight, near, bias)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_row(isa, bad):
    arguments = values(300, 33, 64)
    x = np.random.default_rng(0).normal(size=(3, 33)).astype(np.float32)
    wide = Wide(*arguments, isa=isa)
    clean = wide.linear(x)
    x[1, 5] = bad
    y = wide.linear(x)
    assert not np.isfinite(y[1]).any()
    np.testing.assert_array_equal(y[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize(("M", "N", "K"), [(0, 5, 3), (3, 0, 2), (2, 5, 0)])
def test_nothing(M, N, K):
    y = Wide(*values(N, K, 8)).linear(np.zeros((M, K)))
    assert y.shape == (M, N)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("N", ROWS)
def test_no_byte_beside_the_arrays_is_touched(isa, place, N):
    arrays = [guarded(array, place) for array in values(N, 33, 72)]
    x, y = guarded(np.ones((2, 33), np.float32), place), guarded(np.zeros((2, N), np.float32), place)
    wide = Wide(*arrays, isa=isa)
    assert all(np.shares_memory(a, b) for a, b in zip(wide._held[1].values(), arrays[3:5], strict=True))
    abi.call("hc_wide_linear", wide._handle, abi.pointer(x), 2, abi.pointer(y), None)
    check(y, x, arrays[0], candidates(x, *arrays[1:5]), arrays[5])


def test_a_weight_at_an_odd_address_is_copied():
    weight, *others = values(70, 33, 64)
    memory = np.zeros(weight.nbytes + 1, np.uint8)
    memory[1:] = np.frombuffer(weight.tobytes(), np.uint8)
    x = np.ones((2, 33), np.float32)
    wide = Wide(weight, *others)
    desc, handle = good(weight, *others), c_void_p()
    desc.weight = ctypes.cast(memory.ctypes.data + 1, _FLOATS)
    assert abi.attempt("hc_wide_open", byref(desc), byref(handle)) == 0
    y = np.zeros((2, 70), np.float32)
    abi.call("hc_wide_linear", handle, abi.pointer(x), 2, abi.pointer(y), None)
    abi.LIBRARY.hc_wide_close(handle)
    np.testing.assert_array_equal(y, wide.linear(x))


def good(*arrays):
    """A desc of these arrays, which live as long as it does."""
    return desc_of(dict(zip(("weight", "planes", "start", "sketches", "limit", "bias"), arrays, strict=True)))


def coded():
    """A desc whose rows are codes."""
    names = ("planes", "start", "sketches", "limit", "bias")
    arrays = dict(zip(names, values(70, 33, 64)[1:], strict=True)) | codes_of(70, 33, 4)[1]
    desc = desc_of(arrays)
    desc.code_bits = 4
    return desc


def desc_of(arrays):
    (columns, bits), rows = arrays["planes"].shape, len(arrays["limit"])
    desc = _WideDesc(size=ctypes.sizeof(_WideDesc), rows=rows, columns=columns, bits=bits)
    for name, array in arrays.items():
        setattr(desc, name, abi.pointer(array))
        setattr(desc, f"{name}_len", array.size)
    desc.keep = arrays
    return desc


def attempt(desc):
    handle = c_void_p()
    code = abi.attempt("hc_wide_open", byref(desc), byref(handle))
    assert bool(handle) == (code == 0)
    abi.LIBRARY.hc_wide_close(handle)
    return code


@pytest.mark.parametrize("make", [lambda: good(*values(70, 33, 64)), coded], ids=["fp32", "codes"])
@pytest.mark.parametrize("name", scalars(_WideDesc))
def test_every_number_of_a_desc(name, make):
    for value in scalars(_WideDesc)[name]:
        desc = make()
        before = getattr(desc, name)
        setattr(desc, name, value)
        changed = getattr(desc, name) != before
        assert (attempt(desc) == 0) == (not changed or (name == "isa" and 0 <= value < 11))


@pytest.mark.parametrize("name", ["weight", "planes", "start", "sketches", "limit", "bias"])
def test_every_array_of_a_desc(name):
    desc = good(*values(70, 33, 64))
    setattr(desc, name, None)
    assert (attempt(desc) == 0) == (name == "bias")


@pytest.mark.parametrize("name", ["codes", "table", "scale"])
def test_every_array_of_codes(name):
    desc = coded()
    assert attempt(desc) == 0
    setattr(desc, name, None)
    assert attempt(desc) != 0


def test_rows_are_fp32_or_codes():
    desc, other = coded(), good(*values(70, 33, 64))
    desc.weight, desc.weight_len = other.weight, other.weight_len
    assert attempt(desc) != 0, "both"
    desc = coded()
    desc.code_bits = 0
    assert attempt(desc) != 0, "neither"
    _, *others = values(5, 8, 8)
    with pytest.raises(NativeError, match="code_bits is 3; wanted 1, 2, 4 or 8"):
        Wide(None, *others, codes=np.zeros((5, 3)), table=np.ones(8), scale=np.ones(5))


def test_nothing_at_all():
    handle, desc = c_void_p(), good(*values(70, 33, 64))
    assert abi.attempt("hc_wide_open", None, byref(handle)) == 1
    assert abi.attempt("hc_wide_open", byref(desc), None) == 1
    assert abi.attempt("hc_wide_linear", None, None, 1, None, None) == 1
    wide = Wide(*values(70, 33, 64))
    for m in (1, *(value for value in INTEGERS if value > 0)):
        assert abi.attempt("hc_wide_linear", wide._handle, None, m, None, None) == 1
    abi.LIBRARY.hc_wide_close(None)


def test_bad_bits_are_named():
    with pytest.raises(NativeError, match="bits is 12; wanted a multiple of 8 up to 4096"):
        Wide(np.ones((3, 2)), np.ones((2, 12)), np.ones(12), np.ones((1, 3)), np.ones(3))
