"""T16 codes against the documented formula, written out one index at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashcompile.core.packing import layout, pack, unpack
from tests.oracle import packed

Indices = npt.NDArray[np.uint8]
BITS = range(1, 9)
EDGES = (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65)  # around lines, tiles, pairs and periods


def random_indices(bits: int, rows: int, columns: int, seed: int = 0) -> Indices:
    return np.random.default_rng([seed, bits]).integers(0, 2**bits, (rows, columns), dtype=np.uint8)


@settings(deadline=None)
@given(st.sampled_from(BITS), st.sampled_from(EDGES), st.sampled_from(EDGES), st.integers(0, 9))
def test_pack_is_the_documented_formula(bits: int, rows: int, columns: int, seed: int) -> None:
    indices = random_indices(bits, rows, columns, seed)
    codes = pack(indices, bits)
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(codes, packed(indices, bits))


@settings(deadline=None)
@given(st.sampled_from(BITS), st.integers(0, 100), st.integers(0, 200), st.integers(0, 9))
def test_unpack_inverts_pack(bits: int, rows: int, columns: int, seed: int) -> None:
    indices = random_indices(bits, rows, columns, seed)
    codes = pack(indices, bits)
    assert codes.shape == layout(bits).shape(rows, columns)
    np.testing.assert_array_equal(unpack(codes, bits, rows, columns), indices)


@pytest.mark.parametrize("bits", BITS)
def test_no_bit_is_wasted(bits: int) -> None:
    """Full tiles and periods take exactly `bits` bits an index, and every bit of them matters."""
    rows, columns = 64, 2 * layout(bits).period
    codes = pack(np.full((rows, columns), 2**bits - 1, np.uint8), bits)
    assert 8 * codes.nbytes == bits * rows * columns
    assert (codes == 255).all()


@pytest.mark.parametrize("bits", BITS)
def test_padding_is_index_zero(bits: int) -> None:
    codes = pack(np.full((1, 1), 2**bits - 1, np.uint8), bits)
    assert sum(int(byte).bit_count() for byte in codes.flat) == bits


@pytest.mark.parametrize("bits", BITS)
def test_codes_of_another_shape_are_refused(bits: int) -> None:
    codes = pack(random_indices(bits, 32, 32), bits)
    with pytest.raises(ValueError, match="33 x 32"):
        unpack(codes, bits, 33, 32)
