"""Every attention kernel against float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashcompile_runtime import NativeError, kernels
from hashcompile_runtime._native import attention
from tests.runtime.oracle import EPS, ISAS

KERNELS = [kernel.isa for kernel in kernels() if kernel.runnable and kernel.name == f"attention_{kernel.isa}"]
LENGTHS = (1, 2, 7, 8, 9, 31, 32, 33, 65, 100)
MASKS = ("none", "keys", "full", "float keys", "float full", "rank 2")


def tensors(batch, heads, kv_heads, queries, keys, size, value_size, seed=0):
    """Token-major in memory, as linear layers leave them."""
    rng = np.random.default_rng([seed, batch, heads, kv_heads, queries, keys, size, value_size])

    def tensor(tokens, heads, size):
        return rng.normal(size=(batch, tokens, heads, size)).astype(np.float32).transpose(0, 2, 1, 3)

    return tensor(queries, heads, size), tensor(keys, kv_heads, size), tensor(keys, kv_heads, value_size)


def mask_of(kind, batch, heads, queries, keys):
    rng = np.random.default_rng([batch, heads, queries, keys])
    if kind == "none":
        return None
    shape = {"keys": (batch, 1, 1, keys), "full": (batch, heads, queries, keys), "rank 2": (queries, keys)}
    values = rng.normal(size=shape[kind.removeprefix("float ")])
    return values.astype(np.float32) if kind.startswith("float") else values > -0.5


def oracle(q, k, v, mask, scale, causal, hidden_is_zero=True):
    """-> (B, Sq, H * Dv) in float64."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
    scores = q @ k.swapaxes(2, 3) * scale
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == np.bool_ else scores + mask
    if causal:
        scores = np.where(np.tri(*scores.shape[2:], dtype=bool), scores, -np.inf)
    most = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isinf(most), 0, most))
    total = weights.sum(-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        weights = np.where(
            total == 0, 0 if hidden_is_zero else np.nan, weights / np.where(total == 0, 1, total)
        )
    y = (weights @ v).swapaxes(1, 2)
    return y.reshape(*y.shape[:2], -1)


def tolerance(q, k, v, scale):
    """A score is off by its D products; so the relative error of its exponential, twice (sum, value); then Sk sums."""
    size, keys = q.shape[-1], k.shape[2]
    score = (size + 4) * abs(scale) * np.abs(q).max(initial=0) * np.abs(k).max(initial=0) * size
    return EPS * (2 * score + 2 * keys + 8) * np.abs(v).max(initial=0)


def check(isa, q, k, v, mask=None, *, scale=0.3, causal=False, threads=1):
    y = attention(q, k, v, mask, scale=scale, causal=causal, isa=isa, threads=threads)
    np.testing.assert_allclose(
        y, oracle(q, k, v, mask, scale, causal), rtol=0, atol=tolerance(q, k, v, scale)
    )


@pytest.mark.parametrize("isa", KERNELS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    queries=st.sampled_from(LENGTHS),
    keys=st.sampled_from(LENGTHS),
    size=st.sampled_from((1, 5, 16, 32, 33)),
    value_size=st.sampled_from((1, 5, 16, 32, 33)),
    heads=st.sampled_from(((1, 1), (3, 3), (4, 2), (6, 1))),
    kind=st.sampled_from(MASKS),
    causal=st.booleans(),
)
def test_every_size(isa, queries, keys, size, value_size, heads, kind, causal):
    q, k, v = tensors(2, *heads, queries, keys, size, value_size)
    check(isa, q, k, v, mask_of(kind, 2, heads[0], queries, keys), causal=causal)


@pytest.mark.parametrize("isa", KERNELS)
def test_any_order_of_tokens_and_heads(isa):
    """(B, H, S, D) in memory, and all three in one tensor."""
    q, k, v = tensors(2, 4, 4, 37, 37, 8, 8)
    wanted = attention(q, k, v, scale=0.3, isa=isa)
    packed = np.concatenate([q, k, v], 1).transpose(0, 2, 1, 3).copy().transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(attention(q.copy(), k.copy(), v.copy(), scale=0.3, isa=isa), wanted)
    np.testing.assert_array_equal(
        attention(packed[:, :4], packed[:, 4:8], packed[:, 8:], scale=0.3, isa=isa), wanted
    )


@pytest.mark.parametrize("isa", KERNELS)
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_query_that_sees_no_key(isa, kind):
    q, k, v = tensors(1, 2, 2, 40, 40, 8, 8)
    mask = np.ones((1, 1, 40, 40), bool)
    mask[..., 5, :] = mask[..., 33, :] = False
    if kind == "float":
        mask = np.where(mask, np.float32(0), np.float32(-np.inf))
    check(isa, q, k, v, mask)
    y = attention(q, k, v, mask, scale=1, hidden_is_zero=False, isa=isa)
    assert np.isnan(y[0, [5, 33]]).all()
    assert np.isfinite(np.delete(y, [5, 33], 1)).all()


@pytest.mark.parametrize("isa", KERNELS)
def test_the_lowest_float_hides_as_softmax_would(isa):
    """Models mask with the lowest float: a query that sees no key then attends evenly."""
    q, k, v = tensors(1, 1, 1, 3, 50, 8, 8)
    mask = np.zeros((1, 1, 1, 50), np.float32)
    mask[..., 20:] = np.finfo(np.float32).min
    check(isa, q, k, v, mask)
    y = attention(0 * q, k, v, np.full_like(mask, np.finfo(np.float32).min), scale=1, isa=isa)
    np.testing.assert_allclose(y[0, 0], v[0, 0].mean(0), atol=50 * EPS * np.abs(v).max())


@pytest.mark.parametrize("isa", KERNELS)
def test_nan_stays_in_its_rows(isa):
    q, k, v = tensors(2, 2, 2, 35, 35, 8, 8)
    clean = attention(q, k, v, scale=0.3, isa=isa)
    q[0, 1, 33, 2] = np.nan
    y = attention(q, k, v, scale=0.3, isa=isa)
    assert np.isnan(y[0, 33, 8:]).all()
    y[0, 33, 8:] = clean[0, 33, 8:]
    np.testing.assert_array_equal(y, clean)
    k[1, 0, 4, 0] = np.nan
    assert np.isnan(attention(q, k, v, scale=0.3, isa=isa)[1, :, :8]).all()


@pytest.mark.parametrize("isa", KERNELS)
def test_large_scores_do_not_overflow(isa):
    q, k, v = tensors(1, 1, 1, 5, 40, 8, 8)
    check(isa, 100 * q, 100 * k, v, scale=1)


@pytest.mark.parametrize(
    "shape", [(0, 2, 4, 4, 8), (2, 2, 0, 4, 8), (2, 2, 4, 0, 8), (2, 2, 4, 4, 0), (2, 0, 4, 4, 8)]
)
@pytest.mark.parametrize("hidden_is_zero", [True, False])
def test_nothing(shape, hidden_is_zero):
    batch, heads, queries, keys, size = shape
    q, k, v = tensors(batch, heads, heads, queries, keys, size, size)
    y = attention(q, k, v, scale=1, hidden_is_zero=hidden_is_zero)
    np.testing.assert_array_equal(y, np.zeros((batch, queries, heads * size)))


@pytest.mark.parametrize("isa", ISAS)
def test_threads_do_not_change_a_bit(isa):
    q, k, v = tensors(2, 4, 2, 130, 100, 16, 24)
    mask = mask_of("float full", 2, 4, 130, 100)
    one, two = (attention(q, k, v, mask, scale=0.3, isa=isa, threads=threads) for threads in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_heads_that_do_not_divide_are_refused():
    q, k, v = tensors(1, 3, 2, 4, 4, 8, 8)
    with pytest.raises(NativeError, match="3 query heads on 2 heads of keys"):
        attention(q, k, v, scale=1)
