"""Attention in 8 bits. Values that are an identity show the weights; from these, other values give y to the bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashcompile_runtime import NativeError
from hashcompile_runtime._native import BF16, INT8, attention
from tests.runtime.oracle import ISAS, quantize
from tests.runtime.test_attention import MASKS, mask_of, oracle, tensors

LENGTHS = (8, 9, 31, 32, 33, 65, 100)
LANES = 32  # keys from one to that which takes its rounding error
EXPONENTIAL = 1.2e-4  # relative: 1.02e-4 of the polynomial, and scores of tens with some roundings each


def codes(x):
    """(..., D) to integers and scales, row by row."""
    rows = [quantize(row) for row in x.reshape(-1, x.shape[-1])]
    return (
        np.array([q for q, _ in rows], np.float64).reshape(x.shape),
        np.array([scale for _, scale in rows], np.float32).reshape(x.shape[:-1]),
    )


def heads_apart(y, size):
    """(B, Sq, H * D) -> (B, H, Sq, D)"""
    return y.reshape(*y.shape[:2], -1, size).swapaxes(1, 2)


def weights_of(q, k, mask, **settings):
    """The whole numbers, (B, H, Sq, Sk): the largest of a query is 255."""
    keys = k.shape[2]
    eye = np.broadcast_to(np.eye(keys, dtype=np.float32), (*k.shape[:2], keys, keys)).copy()
    shares = heads_apart(attention(q, k, eye, mask, compute=INT8, **settings), keys)
    most = shares.max(-1, keepdims=True)
    return np.rint(np.divide(255 * shares, most, out=np.zeros_like(shares), where=most > 0))


def exponentials(q, k, mask, scale, causal):
    """exp(score - largest) of rounded queries and keys in float64, (B, H, Sq, Sk)."""
    (q, sq), (k, sk) = codes(q), codes(k)
    q, k = q * sq[..., None], k * sk[..., None]
    eye = np.broadcast_to(np.eye(k.shape[2]), (*k.shape[:2], k.shape[2], k.shape[2]))
    shares = heads_apart(oracle(q, k, eye, mask, scale, causal), k.shape[2])
    most = shares.max(-1, keepdims=True)
    return np.divide(shares, most, out=np.zeros_like(shares), where=most > 0)


def mixed(weights, v):
    """y (B, Sq, H * Dv) from whole weights, in the order of operations that every kernel keeps."""
    values, scale = codes(v.swapaxes(2, 3))
    repeats = weights.shape[1] // v.shape[1]
    values, scale = np.repeat(values, repeats, 1), np.repeat(scale, repeats, 1)
    sums = (weights @ values.swapaxes(2, 3)).astype(np.float32)
    with np.errstate(divide="ignore"):
        inverse = np.float32(1) / weights.sum(-1).astype(np.float32)
    inverse = np.where(np.isinf(inverse), np.float32(0), inverse)
    y = sums * (scale[:, :, None, :] * inverse[..., None])
    return y.swapaxes(1, 2).reshape(y.shape[0], y.shape[2], -1)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    queries=st.sampled_from(LENGTHS),
    keys=st.sampled_from((1, 2, 7, *LENGTHS)),
    size=st.sampled_from((1, 5, 16, 32, 33)),
    value_size=st.sampled_from((1, 5, 16, 32, 33, 65)),
    heads=st.sampled_from(((1, 1), (3, 3), (4, 2))),
    kind=st.sampled_from(MASKS),
    causal=st.booleans(),
)
def test_every_size(isa, queries, keys, size, value_size, heads, kind, causal):
    q, k, v = tensors(2, *heads, queries, keys, size, value_size)
    mask, how = mask_of(kind, 2, heads[0], queries, keys), {"scale": 0.3, "causal": causal, "isa": isa}
    weights, exact = weights_of(q, k, mask, **how), 255 * exponentials(q, k, mask, 0.3, causal)
    for lane in range(
        min(LANES, keys)
    ):  # what is lost is never more than a weight of 1, over however many keys
        lost = np.cumsum((weights - exact)[..., lane::LANES], -1)
        allowed = 0.5 + 1 / 256 + np.cumsum(exact[..., lane::LANES] * EXPONENTIAL + 1 / 512, -1)
        assert (np.abs(lost) <= allowed).all()
    np.testing.assert_array_equal(attention(q, k, v, mask, compute=INT8, **how), mixed(weights, v))


@pytest.mark.parametrize("isa", ISAS)
def test_many_small_weights_are_not_lost(isa):
    """One key with a weight of 1, 2000 with 0.0007 each: each of them alone would be rounded to 0 of 255."""
    q, k = np.ones((1, 1, 8, 4), np.float32), np.full((1, 1, 2001, 4), -1, np.float32)
    k[0, 0, 7] = 1
    scale = -np.log(0.0007) / 8  # scores 4 * scale and -4 * scale
    weights = weights_of(q, k, None, scale=scale, isa=isa)
    assert abs(weights[0, 0, 0].sum() - 255 * (1 + 2000 * 0.0007)) <= LANES / 2 + 1


@pytest.mark.parametrize("isa", ISAS)
def test_any_order_of_tokens_and_heads(isa):
    q, k, v = tensors(2, 4, 4, 37, 37, 8, 8)
    wanted = attention(q, k, v, scale=0.3, compute=INT8, isa="scalar")
    packed = np.concatenate([q, k, v], 1).transpose(0, 2, 1, 3).copy().transpose(0, 2, 1, 3)
    for of in ((q, k, v), (q.copy(), k.copy(), v.copy()), (packed[:, :4], packed[:, 4:8], packed[:, 8:])):
        np.testing.assert_array_equal(attention(*of, scale=0.3, compute=INT8, isa=isa), wanted)


@pytest.mark.parametrize("isa", ISAS)
def test_threads_do_not_change_a_bit(isa):
    """Nor where a task begins in the middle of a head."""
    q, k, v = tensors(2, 4, 2, 130, 100, 16, 24)
    mask = mask_of("float full", 2, 4, 130, 100)
    one, two = (attention(q, k, v, mask, scale=0.3, compute=INT8, isa=isa, threads=n) for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_few_queries_are_computed_in_floats():
    q, k, v = tensors(1, 2, 2, 7, 40, 8, 8)
    np.testing.assert_array_equal(attention(q, k, v, scale=0.3, compute=INT8), attention(q, k, v, scale=0.3))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_query_that_sees_no_key(isa, kind):
    q, k, v = tensors(1, 2, 2, 40, 40, 8, 8)
    mask = np.ones((1, 1, 40, 40), bool)
    mask[..., 5, :] = mask[..., 33, :] = False
    if kind == "float":
        mask = np.where(mask, np.float32(0), np.float32(-np.inf))
    y = attention(q, k, v, mask, scale=1, compute=INT8, isa=isa)
    np.testing.assert_array_equal(y[0, [5, 33]], 0)
    hidden = attention(q, k, v, mask, scale=1, hidden_is_zero=False, compute=INT8, isa=isa)
    assert np.isnan(hidden[0, [5, 33]]).all()
    np.testing.assert_array_equal(np.delete(hidden, [5, 33], 1), np.delete(y, [5, 33], 1))


@pytest.mark.parametrize("isa", ISAS)
def test_the_lowest_float_hides_as_softmax_would(isa):
    q, k, v = tensors(1, 1, 1, 9, 50, 8, 8)
    mask = np.zeros((1, 1, 1, 50), np.float32)
    mask[..., 20:] = np.finfo(np.float32).min
    y = attention(q, k, v, mask, scale=1, compute=INT8, isa=isa)
    np.testing.assert_array_equal(y, mixed(weights_of(q, k, mask, scale=1, isa=isa), v))
    even = weights_of(q, k, np.full_like(mask, np.finfo(np.float32).min), scale=0, isa=isa)
    np.testing.assert_array_equal(even, 255)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_is_not_finite_stays_where_it_is_read(isa, poison):
    q, k, v = tensors(2, 2, 2, 35, 35, 8, 8)

    def run(mask=None, causal=False):
        return attention(q, k, v, mask, scale=0.3, causal=causal, compute=INT8, isa=isa)

    clean, past = run(), run(causal=True)
    q[0, 1, 33, 2] = poison
    y = run()
    assert np.isnan(y[0, 33, 8:]).all()
    y[0, 33, 8:] = clean[0, 33, 8:]
    np.testing.assert_array_equal(y, clean)
    q[0, 1, 33, 2] = 1
    k[1, 0, 20, 0] = poison
    assert np.isnan(run()[1, :, :8]).all()
    later = run(causal=True)[1, :, :8]
    assert np.isnan(later[20:]).all()
    np.testing.assert_array_equal(later[:20], past[1, :20, :8])
    k[1, 0, 20, 0] = 1
    v[1, 1, 3, 4] = poison
    y = run()
    assert np.isnan(y[1, :, 12]).all()
    assert np.isfinite(np.delete(y[1], 12, 1)).all()
    v[1, 1, 3, 4] = 1
    mask = np.zeros((1, 1, 35, 35), np.float32)
    mask[0, 0, 9, 30] = poison
    y = run(mask)
    assert np.isnan(y[:, 9]).all()
    assert np.isfinite(np.delete(y, 9, 1)).all()


@pytest.mark.parametrize("isa", ISAS)
def test_one_row_of_a_mask_serves_all_queries_and_heads_of_its_batch(isa):
    q, k, v = tensors(3, 2, 2, 70, 35, 8, 8)
    mask = np.zeros((3, 1, 1, 35), np.float32)
    mask[1, ..., 20:], mask[2, ..., 7] = -np.inf, np.nan
    y = attention(q, k, v, mask, scale=0.3, compute=INT8, isa=isa)
    full = np.broadcast_to(mask, (3, 2, 70, 35)).copy()
    np.testing.assert_array_equal(y, attention(q, k, v, full, scale=0.3, compute=INT8, isa=isa))
    np.testing.assert_array_equal(np.isnan(y).all((1, 2)), [False, False, True])
    assert np.isfinite(y[:2]).all()


@pytest.mark.parametrize("isa", ISAS)
def test_large_scores_and_zeros(isa):
    q, k, v = tensors(1, 1, 1, 9, 40, 8, 8)
    y = attention(100 * q, 100 * k, v, scale=1, compute=INT8, isa=isa)  # the largest score alone counts
    np.testing.assert_array_equal(y, mixed(weights_of(100 * q, 100 * k, None, scale=1, isa=isa), v))
    np.testing.assert_array_equal(weights_of(0 * q, k, None, scale=1, isa=isa), 255)
    np.testing.assert_array_equal(attention(q, k, 0 * v, scale=1, compute=INT8, isa=isa), 0)


@pytest.mark.parametrize("isa", ISAS)
def test_scales_that_overflow_together_leave_no_number(isa):
    q, k, v = tensors(1, 1, 1, 9, 40, 8, 8)
    q[..., 0] = 0
    q[0, 0, 3] = 1e25 * np.eye(8)[1]
    clean = attention(q, k, v, scale=1, compute=INT8, isa=isa)
    assert np.isfinite(clean).all()
    k[0, 0, 17] = 1e25 * np.eye(8)[0]  # the sums are 0, times infinity
    y = attention(q, k, v, scale=1, compute=INT8, isa=isa)
    np.testing.assert_array_equal(np.isnan(y[0]).all(-1), np.arange(9) == 3)
    assert np.isfinite(np.delete(y, 3, 1)).all()


def test_an_unknown_arithmetic_is_refused():
    q, k, v = tensors(1, 1, 1, 9, 9, 8, 8)
    with pytest.raises(NativeError, match="compute is 2; wanted 0"):
        attention(q, k, v, scale=1, compute=BF16)
