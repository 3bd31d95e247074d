"""Rows of codebook and hashed weights, as the emulated GPU makes them: to the bit."""

import numpy as np
import pytest
import torch

from hashcompile.core.rows import RowView
from hashcompile.passes.hashed.weight import HashedWeight
from hashcompile_runtime.cuda import hashed_weight
from tests.cuda.oracle import DTYPES, array, beside_forbidden, call, layer

IDS = torch.tensor([0, 5, -1, 12, 5, -13])


def run(kernels, native, ids, columns, dtype):
    y = torch.full((len(ids), columns), float("nan"), dtype=dtype)
    held = beside_forbidden(ids)
    given, _kept = call(held, y)
    kernels.embedding(native, given, len(ids))
    return y


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("columns", [1, 32, 37])
@pytest.mark.parametrize("bits", range(1, 9))
def test_codebook(emulated, bits, columns, dtype):
    weight = layer(bits, 13, columns)
    wanted = weight.codebook[0][weight.indices.int()] * weight.scale[:, None]
    got = run(emulated, weight.native(), IDS, columns, dtype)
    assert torch.equal(got, wanted[IDS].to(dtype))


@pytest.mark.parametrize("group_rows", [16, 48])
def test_tables_of_groups(emulated, group_rows):
    weight = layer(3, 100, 20, group_rows)
    ids = torch.arange(100)
    wanted = weight.codebook[(ids // group_rows)[:, None], weight.indices.int()] * weight.scale[:, None]
    assert torch.equal(run(emulated, weight.native(), ids, 20, torch.float32), wanted)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scales", [0, 1, 13])
@pytest.mark.parametrize("tile", [False, True], ids=("weights", "tiles"))
def test_hashed(emulated, tile, scales, dtype):
    rng = np.random.default_rng(scales)
    values = torch.from_numpy(rng.normal(size=1024).astype(np.float32)).to(dtype)
    scale = torch.from_numpy(rng.uniform(0.5, 2, scales).astype(np.float32)) if scales else None
    code = HashedWeight(RowView((13, 70)), values.float(), 123456789, tile, scale)
    held = beside_forbidden(values), None if scale is None else beside_forbidden(scale)
    native = hashed_weight(123456789, (13, 70), 16 if tile else 1, array(held[0]), array(held[1]))
    got = run(emulated, native, IDS, 70, dtype)
    assert torch.equal(got, code.rows().detach()[IDS].to(dtype))


def test_ids_out_of_range_give_nan(emulated):
    """They lie in the device's memory: nobody could tell before the kernel runs."""
    weight = layer(4, 13, 8)
    got = run(emulated, weight.native(), torch.tensor([13, 0, -14, 2**40]), 8, torch.float32)
    assert got[[0, 2, 3]].isnan().all()
    assert not got[1].isnan().any()


def test_empty(emulated):
    assert run(emulated, layer(4, 13, 8).native(), IDS[:0], 8, torch.float32).shape == (0, 8)
    assert run(emulated, layer(4, 13, 0).native(), IDS, 0, torch.float32).shape == (6, 0)
