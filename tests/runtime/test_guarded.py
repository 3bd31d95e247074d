"""No kernel reads or writes a byte that is not its own: inputs, outputs and codes lie at the edge of their pages."""

import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashcompile_runtime._native import ACTIVATIONS, BF16, FLOAT, INT8, X_LAST, Y_LAST, Weight
from tests.runtime import abi
from tests.runtime.guarded import PLACES, guarded
from tests.runtime.oracle import DENSE, EDGES, ISAS, activations, int8_weights, layer
from tests.runtime.test_attention import MASKS, mask_of
from tests.runtime.test_conv2d import GROUPED, SHAPES

sizes = st.sampled_from(EDGES)
some = settings(max_examples=20, deadline=None, derandomize=True)


def weight(of, place, compute=FLOAT, isa="auto", groups=1):
    arrays = (
        array if array is None else guarded(array, place)
        for array in (of.codes, of.codebook, of.scale, of.bias)
    )
    return Weight(
        *arrays,
        bits=of.bits,
        columns=of.centroids.shape[1],
        group_rows=of.group_rows,
        groups=groups,
        compute=compute,
        isa=isa,
    )


def output(shape, place):
    return guarded(np.full(shape, np.nan, np.float32), place)


def epilogue(activation, residual):
    size = abi.ctypes.sizeof(abi.Epilogue)
    return abi.byref(abi.Epilogue(size, ACTIVATIONS.index(activation), -1, 1, abi.pointer(residual)))


@pytest.mark.parametrize(("place", "byte"), [("end", 12), ("start", -1), ("odd", 16)])
def test_the_guard_bites(place, byte):
    code = f"""
import ctypes, numpy as np
from tests.runtime.guarded import guarded
ctypes.string_at(guarded(np.zeros(3, np.float32), {place!r}).ctypes.data + {byte}, 1)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGSEGV or b"AddressSanitizer: SEGV" in ended.stderr


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("compute", [FLOAT, INT8, BF16])
@some
@given(
    M=sizes,
    N=sizes,
    K=sizes,
    bits=st.integers(1, 8),
    group_rows=st.sampled_from((0, 16)),
    activation=st.sampled_from(("none", "clip", "gelu")),
)
def test_linear(isa, place, compute, M, N, K, bits, group_rows, activation):
    of, x = layer(bits, N, K, group_rows=group_rows), activations(M, K)
    r, y = guarded(activations(M, N, seed=1), place), output((M, N), place)
    opened, tail = weight(of, place, compute, isa), (epilogue(activation, r), None)
    abi.call("hc_linear", opened._handle, abi.pointer(guarded(x, place)), M, abi.pointer(y), *tail)
    assert np.isfinite(y).all()  # all of it is written


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("place", PLACES)
@some
@given(M=sizes, N=sizes, K=sizes)
def test_linear_without_a_table(isa, place, M, N, K):
    of, x, y = int8_weights(N, K), guarded(activations(M, K), place), output((M, N), place)
    opened = weight(of, place, INT8, isa)
    abi.call("hc_linear", opened._handle, abi.pointer(x), M, abi.pointer(y), None, None)
    assert np.isfinite(y).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("place", ["start", "end"])
@some
@given(M=sizes, N=sizes, K=sizes)
def test_linear_of_values(isa, place, M, N, K):
    of, x, y = layer(DENSE, N, K), guarded(activations(M, K), place), output((M, N), place)
    opened = weight(of, place, FLOAT, isa)
    abi.call("hc_linear", opened._handle, abi.pointer(x), M, abi.pointer(y), None, None)
    assert np.isfinite(y).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("bits", "compute"), [*((b, c) for b in (3, 4, 8) for c in (FLOAT, INT8)), (DENSE, FLOAT)]
)
def test_conv2d(isa, place, bits, compute):
    if bits == DENSE and place not in ("start", "end"):
        pytest.skip("values are aligned")
    for C, N, groups, size, kernel, *of_window in [(C, N, 1, *rest) for C, N, *rest in SHAPES] + GROUPED:
        of, x = layer(bits, N, kernel[0] * kernel[1] * C // groups), activations(2, C, *size)
        opened = weight(of, place, compute, isa, groups)
        wanted = opened.conv2d(x, kernel, *of_window)
        y = output(wanted.shape, place)
        r = guarded(np.zeros_like(y), place)
        desc = abi.byref(abi.conv_desc(x.shape, kernel, *of_window))
        inner = guarded(x, place)
        abi.call(
            "hc_conv2d",
            opened._handle,
            desc,
            abi.pointer(inner),
            abi.pointer(y),
            epilogue("none", r),
            None,
        )
        np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("place", PLACES)
def test_images_with_channels_last(isa, place):
    """They are read where they lie."""
    for C, N, groups, size, kernel, *of_window in [(C, N, 1, *rest) for C, N, *rest in SHAPES] + GROUPED:
        of, x = layer(4, N, kernel[0] * kernel[1] * C // groups), activations(2, C, *size)
        opened, last = weight(of, "start", FLOAT, isa, groups), X_LAST | Y_LAST
        inner = guarded(np.moveaxis(x, 1, -1).copy(), place)
        wanted = opened.conv2d(inner, kernel, *of_window, channels_last=last)
        y, r = output(wanted.shape, place), guarded(np.zeros_like(wanted), place)
        desc = abi.conv_desc(x.shape, kernel, *of_window)
        desc.channels_last = last
        into = abi.pointer(inner), abi.pointer(y), epilogue("none", r), None
        abi.call("hc_conv2d", opened._handle, abi.byref(desc), *into)
        np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("bits", range(1, 9))
@some
@given(N=sizes, K=sizes)
def test_embedding_and_decode(place, bits, N, K):
    of = layer(bits, N, K)
    opened = weight(of, place)
    dense, ids = output((N, K), place), guarded(np.arange(-N, N), place)
    y = output((2 * N, K), place)
    abi.call("hc_decode", opened._handle, abi.pointer(dense))
    abi.call("hc_embedding", opened._handle, abi.pointer(ids), 2 * N, abi.pointer(y), None)
    np.testing.assert_array_equal(dense, of.dense)
    np.testing.assert_array_equal(y, np.concatenate([of.dense, of.dense]))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("compute", [FLOAT, INT8])
@some
@given(
    queries=sizes,
    keys=sizes,
    size=st.sampled_from((1, 5, 16, 33)),
    value_size=st.sampled_from((1, 5, 16, 33)),
    kind=st.sampled_from(MASKS),
    causal=st.booleans(),
    token_major=st.booleans(),
)
def test_attention(isa, place, compute, queries, keys, size, value_size, kind, causal, token_major):
    def tensor(heads, tokens, features):
        if not token_major:
            return guarded(activations(2, heads, tokens, features), place)
        return guarded(activations(2, tokens, heads, features), place).transpose(0, 2, 1, 3)

    q, k, v = tensor(4, queries, size), tensor(2, keys, size), tensor(2, keys, value_size)
    mask = mask_of(kind, 2, 4, queries, keys)
    mask = None if mask is None else guarded(mask, place)
    desc = abi.attention_desc(
        q, k, v, mask, isa=isa, compute=compute, scale=0.3, causal=causal, hidden_is_zero=1
    )
    y = output((2, queries, 4 * value_size), place)
    given_mask = None if mask is None else abi.c_void_p(mask.ctypes.data)
    abi.call("hc_attention", abi.byref(desc), *map(abi.pointer, (q, k, v)), given_mask, abi.pointer(y), None)
    assert np.isfinite(y).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("C", "N", "size"), [(1, 1, (1, 1)), (3, 33, (7, 5)), (17, 129, (4, 9)), (257, 15, (2, 3))]
)
def test_chain(isa, place, dynamic, C, N, size):
    """Convolutions (dense, grouped with a residual, depthwise), poolings, a sum, a global average, subsamplings."""
    deep, mixed = layer(4, N, 9 * N, seed=1), layer(3, N, 1, seed=2)
    first, second, third = (
        weight(layer(5, N, C), place, INT8, isa),
        weight(deep, place, INT8, isa),
        weight(mixed, place, INT8, isa, groups=N),
    )
    three = {"kernel": (3, 3), "pads": (1, 1, 1, 1)}
    steps = [
        abi.step(0, 0, 1, weight=first, activation=1),
        abi.step(0, 1, 2, weight=second, other=1, window=abi.window(**three)),
        abi.step(0, 2, 3, weight=third, activation=5),
        abi.step(1, 3, 4, window=abi.window(**three)),
        abi.step(2, 4, 5, flag=1, window=abi.window(**three)),
        abi.step(4, 5, 6, other=3),
        abi.step(3, 6, 7),
        abi.step(5, 1, 8, window=abi.window(strides=(2, 3)), channels_before=1),
        abi.step(5, 8, 9, channels_after=33),
    ]
    quant = (0.0, 0) if dynamic else (0.05, 100)
    chain = abi.Chain(1, steps, [quant] * 10, [6, 7, 2, 9])
    x = guarded(activations(2, C, *size), place)
    y = [output(shape, place) for shape in chain.shapes(x.shape)]
    chain.run([x], y)
    for values in y:
        assert np.isfinite(values).all()
