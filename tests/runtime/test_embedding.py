"""Rows of the weight, bit for bit."""

import numpy as np
import pytest

from hashcompile_runtime import NativeError
from tests.runtime.oracle import DENSE, EDGES, layer


@pytest.mark.parametrize("bits", [*range(1, 9), DENSE])
@pytest.mark.parametrize("group_rows", [0, 16])
def test_rows_and_decode(bits, group_rows):
    for N in (1, 16, 33, 129):
        for K in EDGES:
            of = layer(bits, N, K, group_rows=group_rows)
            weight = of.weight()
            np.testing.assert_array_equal(weight.decode(), of.dense)
            ids = np.random.default_rng(N).integers(-N, N, (3, 5))
            np.testing.assert_array_equal(weight.embedding(ids), of.dense[ids])


def test_threads_and_many_ids():
    of = layer(4, 500, 384)
    ids = np.random.default_rng(0).integers(-500, 500, 999)
    np.testing.assert_array_equal(of.weight().embedding(ids, threads=2), of.dense[ids])


def test_no_ids():
    assert layer(4, 5, 7).weight().embedding(np.zeros((2, 0), np.int64)).shape == (2, 0, 7)


@pytest.mark.parametrize("bad", [5, -6, 2**62, -(2**62)])
def test_bad_id(bad):
    message = rf"id {bad} at position 1; the table has 5 rows: ids are in \[-5, 5\)"
    with pytest.raises(NativeError, match=message):
        layer(4, 5, 7).weight().embedding([0, bad])
