"""Every linear kernel against float64, and against the integer arithmetic bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashcompile_runtime import NativeError, kernels
from hashcompile_runtime._native import ACTIVATIONS, BF16, FLOAT, INT8, Epilogue, Weight
from tests.runtime.oracle import (
    DENSE,
    EDGES,
    EPS,
    ISAS,
    activations,
    bf16,
    exact,
    float64_activation,
    float_bound,
    int8_linear,
    int8_weights,
    layer,
    period,
)

LINEAR = [kernel for kernel in kernels() if kernel.runnable and kernel.bits]
sizes = st.sampled_from(EDGES)


def check(kernel, N, K, M, group_rows=0, bias=True):
    of, x = layer(kernel.bits, N, K, group_rows=group_rows, bias=bias), activations(M, K)
    if kernel.name.startswith("codebook_i8"):
        np.testing.assert_array_equal(of.weight(INT8, kernel.isa).linear(x), int8_linear(of, x))
    elif kernel.name.startswith("codebook_bf16"):
        check_bf16(of, x, kernel.isa)
    else:
        error = np.abs(of.weight(FLOAT, kernel.isa).linear(x) - exact(of, x))
        assert np.all(error <= float_bound(of, x)), f"M={M} K={K} N={N}: off by {error.max()}"


def check_bf16(of, x, isa):
    """As exact as fp32 on rounded factors, for the whole blocks of columns, whose factors are rounded."""
    whole = x.shape[1] // period(of.bits) * period(of.bits)
    rounded_x, rounded = x.copy(), of.centroids.copy()
    rounded_x[:, :whole], rounded[:, :whole] = bf16(x[:, :whole]), bf16(rounded[:, :whole])
    rounded_of = of._replace(centroids=rounded)
    error = np.abs(of.weight(BF16, isa).linear(x) - exact(rounded_of, rounded_x))
    assert np.all(error <= float_bound(rounded_of, rounded_x))


@pytest.mark.parametrize("kernel", LINEAR, ids=lambda kernel: kernel.name)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(N=sizes, K=sizes, M=sizes, group_rows=st.sampled_from((0, 16, 48)), bias=st.booleans())
def test_every_size(kernel, N, K, M, group_rows, bias):
    check(kernel, N, K, M, group_rows, bias)


@pytest.mark.parametrize("kernel", LINEAR, ids=lambda kernel: kernel.name)
def test_every_number_of_rows(kernel):
    for M in range(1, 18):
        check(kernel, 40, 97, M)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(N=sizes, K=sizes, M=sizes, bias=st.booleans())
def test_values_without_a_table(isa, N, K, M, bias):
    of, x = layer(DENSE, N, K, bias=bias), activations(M, K)
    for compute in (FLOAT, BF16):
        y = of.weight(compute, isa).linear(x)
        assert np.all(np.abs(y - exact(of, x)) <= float_bound(of, x))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("M", "N", "K"), [(1, 1, 8), (5, 45, 33), (70, 32, 40), (3, 0, 7)])
def test_epilogue(activation, isa, M, N, K):
    """Against float64 on the very values that the plain product gives."""
    of, x = layer(4, N, K), activations(M, K)
    for compute in (FLOAT, INT8):
        weight = of.weight(compute, isa)
        total = weight.linear(x)
        for added in (None, activations(M, N, seed=1)):
            total = total if added is None else total + added
            y = weight.linear(x, epilogue=Epilogue(activation, -0.5, 2, added))
            wanted = float64_activation(activation, total)
            # the argument's own rounding is the same on both sides; a few roundings and 5 ulp of erf or tanh remain
            assert np.all(np.abs(y - wanted) <= 16 * EPS * (np.abs(wanted) + np.abs(total)) + 1e-37)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_far_from_zero_gelu_is_zero_or_the_value(activation, isa):
    far = np.float32([[-3e38, -1e20, -100, -12, 12, 100, 1e20, 3e38, 0, -0.0, 1e-40, -1e-40]])
    weight = layer(4, far.shape[1], 8, bias=False).weight(FLOAT, isa)
    y = weight.linear(np.zeros((1, 8), np.float32), epilogue=Epilogue(activation, 0, 0, far))
    np.testing.assert_array_equal(y[:, :4], 0)
    np.testing.assert_array_equal(y[:, 4:8], far[:, 4:8])
    np.testing.assert_allclose(y[:, 8:], far[:, 8:] / 2, atol=1e-45)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_keeps_nan_in_its_row(activation, isa):
    of, x = layer(4, 20, 33), activations(3, 33)
    x[1, 5] = np.nan
    y = of.weight(INT8, isa).linear(x, epilogue=Epilogue(activation, -1, 1))
    assert np.isnan(y[1]).all()
    assert np.isfinite(y[[0, 2]]).all()


def test_bad_epilogues_are_refused():
    of, x = layer(4, 20, 33), activations(3, 33)
    with pytest.raises(NativeError, match=r"a clip to \[2, 1\]"):
        of.weight().linear(x, epilogue=Epilogue("clip", 2, 1))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("lowest", [-127, -128])
@pytest.mark.parametrize(("N", "K"), [(40, 97), (16, 4), (33, 1030), (5, 0)])
def test_codes_that_are_the_weights(N, K, lowest, isa):
    """With them, and with a code of -128, which is no weight, so that the table must be asked."""
    of = int8_weights(N, K, lowest=lowest)
    weight = of.weight(INT8, isa)
    for M in (1, 2, 3, 5, 8, 17, 65):
        x = activations(M, K)
        np.testing.assert_array_equal(weight.linear(x), int8_linear(of, x))


@pytest.mark.parametrize("bits", [*range(1, 9), DENSE])
@pytest.mark.parametrize("isa", ISAS)
def test_decode_is_bit_exact(isa, bits):
    """Rows of the identity take one value each, and add zeros."""
    of = layer(bits, 50, 70, group_rows=16, bias=False)
    for M in (1, 70):
        got = of.weight(FLOAT, isa).linear(np.eye(M, 70, dtype=np.float32))
        np.testing.assert_array_equal(got, of.dense[:, :M].T)


@pytest.mark.parametrize("bits", [1, 4, 7])
def test_int8_is_the_same_everywhere(bits):
    of, x = layer(bits, 100, 333, group_rows=32), activations(77, 333)
    results = [of.weight(INT8, isa).linear(x, threads=threads) for isa in ISAS for threads in (1, 2)]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("bits", "compute"), [(4, FLOAT), (4, INT8), (DENSE, FLOAT)])
def test_threads_do_not_change_a_bit(isa, bits, compute):
    of, x = layer(bits, 1000, 500), activations(70, 500)
    weight = of.weight(compute, isa)
    np.testing.assert_array_equal(weight.linear(x, threads=1), weight.linear(x, threads=2))


@pytest.mark.parametrize("isa", ISAS)
def test_a_row_longer_than_int32_sums(isa):
    """65,536 columns at a time are exact in int32, even where largest meets largest."""
    of = layer(2, 20, 65536 + 40)
    of.codebook[:] = 3
    of.centroids[:] = 3
    x = np.ones((3, 65576), np.float32)
    x[1] = -1
    x[2] = activations(65576)
    np.testing.assert_array_equal(of.weight(INT8, isa).linear(x), int8_linear(of, x))


@pytest.mark.parametrize("isa", ISAS)
def test_rows_that_are_not_finite(isa):
    of, x = layer(4, 33, 50), activations(6, 50)
    clean = of.weight(INT8, isa).linear(x)
    x[1, 3], x[2, 49], x[4, 0] = np.nan, np.inf, -np.inf
    y = of.weight(INT8, isa).linear(x)
    assert np.isnan(y[[1, 2, 4]]).all()
    np.testing.assert_array_equal(y[[0, 3, 5]], clean[[0, 3, 5]])
    y = of.weight(FLOAT, isa).linear(x)
    assert not np.isfinite(y[[1, 2, 4]]).any() and np.isfinite(y[[0, 3, 5]]).all()


@pytest.mark.parametrize("isa", ISAS)
def test_bf16_is_near_wherever_it_runs(isa):
    """Each factor is rounded by at most 2^-9 of its size, if at all."""
    of, x = layer(4, 70, 300), activations(20, 300)
    size = np.abs(x).astype(np.float64) @ np.abs(of.dense).T.astype(np.float64)
    error = np.abs(of.weight(BF16, isa).linear(x) - exact(of, x))
    assert np.all(error <= float_bound(of, x) + (2**-8 + 2**-18) * size)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("factor", [0, 1e-45, 1e-38, 1e-30, 1e30])
def test_activations_of_any_size(isa, factor):
    of = layer(4, 33, 50)
    x = (activations(4, 50) * factor).astype(np.float32)
    np.testing.assert_array_equal(of.weight(INT8, isa).linear(x), int8_linear(of, x))


@pytest.mark.parametrize("factor", [0, 1e-44, 1e-38, 1e30])
def test_tables_of_any_size(factor):
    of = layer(3, 33, 50)
    of.codebook[:] *= np.float32(factor)
    of.centroids[:] *= np.float32(factor)
    x = activations(4, 50)
    np.testing.assert_array_equal(of.weight(INT8).linear(x), int8_linear(of, x))


@pytest.mark.parametrize("isa", ISAS)
def test_halves_round_to_even(isa):
    of = layer(4, 16, 8)
    x = np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 3.5]], np.float32)
    np.testing.assert_array_equal(of.weight(INT8, isa).linear(x), int8_linear(of, x))


def test_extra_batch_dimensions():
    of, x = layer(4, 40, 24), activations(2, 3, 5, 24)
    for compute in (FLOAT, INT8):
        weight = of.weight(compute)
        np.testing.assert_array_equal(weight.linear(x), weight.linear(x.reshape(30, 24)).reshape(2, 3, 5, 40))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 0}, "bits is 0"),
        ({"bits": 9}, "bits is 9"),
        ({"columns": 999}, "codes have 768 bytes; 4 bits, 40 x 999 need"),
        ({"columns": -1}, "negative size"),
        ({"columns": 2**62}, "overflows"),
        ({"group_rows": 17}, "group_rows is 17; wanted 0 or a multiple of 16"),
        ({"group_rows": -16}, "group_rows is -16"),
        ({"group_rows": 32}, "codebook has 16 values; wanted 32"),
        ({"compute": 3}, "compute is 3"),
        ({"codebook": np.zeros((1, 15))}, "codebook has 15 values; wanted 16"),
        ({"codebook": np.full((1, 16), np.inf)}, r"codebook\[0\] is not finite"),
        ({"scale": np.full(40, np.nan)}, r"scale\[0\] is not finite"),
        ({"bias": np.zeros(39)}, "bias has 39 values; wanted 40"),
        ({"codes": np.zeros(7, np.uint8)}, "codes have 7 bytes"),
        ({"isa": "sse"}, "unknown instruction set 'sse'"),
    ],
)
def test_bad_weights_are_refused(change, message):
    of = layer(4, 40, 20)
    arguments = {"codes": of.codes, "codebook": of.codebook, "scale": of.scale, "bias": of.bias, "bits": 4}
    arguments |= {"columns": 20} | change
    with pytest.raises(NativeError, match=message):
        Weight(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compute": INT8}, "a weight of fp32 values is HC_FLOAT or HC_BF16, without tables"),
        ({"group_rows": 16}, "without tables"),
        ({"codebook": np.zeros((1, 16))}, "codebook has 16 values; wanted 0"),
        ({"columns": 19}, "codes have 5120 bytes; 32 bits, 40 x 19 need 4864"),
        ({"bits": 31}, "bits is 31; an index has 1 to 8, a value 32"),
        ({"codes": np.zeros(5121, np.uint8)[1:]}, "codes that are fp32 values are not aligned"),
    ],
)
def test_bad_values_are_refused(change, message):
    of = layer(DENSE, 40, 20)
    arguments = {"codes": of.codes, "codebook": of.codebook, "scale": of.scale, "bits": DENSE, "columns": 20}
    with pytest.raises(NativeError, match=message):
        Weight(**arguments | change)
