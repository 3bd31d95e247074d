"""Linear layers of hashed tiles, as the emulated GPU runs them, against float64."""

import numpy as np
import pytest
import torch

from hashcompile.core.rows import RowView
from hashcompile.passes.hashed.weight import HashedWeight
from hashcompile_runtime.cuda import CudaPath, hashed_weight
from tests.cuda.oracle import DTYPES, array, assert_close, beside_forbidden, call, numbers

SEED = 2**31 - 5


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("path", [CudaPath.AUTO, CudaPath.GEMM], ids=str)
@pytest.mark.parametrize("scales", ["none", "one", "rows"])
@pytest.mark.parametrize(
    "shape", [(16, 16, 1), (33, 50, 3), (200, 300, 4), (65, 130, 17), (300, 40, 40)], ids=str
)
def test_against_float64(emulated, shape, scales, path, dtype):
    n, k, m = shape
    rng = np.random.default_rng(shape)
    values = beside_forbidden(torch.from_numpy(rng.normal(size=5 * 256).astype(np.float32)).to(dtype))
    count = {"none": 0, "one": 1, "rows": n}[scales]
    scale = (
        beside_forbidden(torch.from_numpy(rng.uniform(0.5, 2, count).astype(np.float32))) if count else None
    )
    bias = beside_forbidden(torch.from_numpy(rng.normal(size=n).astype(np.float32)))
    x, y = numbers((m, k), dtype), torch.full((m, n), float("nan"), dtype=dtype)
    native = hashed_weight(SEED, (n, k), 16, array(values), array(scale), array(bias))
    given, _kept = call(x, y, emulated.workspace(m, n), path)
    emulated.linear(native, given, m)

    code = HashedWeight(RowView((n, k)), values.float(), SEED, True)
    w, held = code.rows().detach().double(), x.double()
    factor = 1.0 if scale is None else scale.double()
    assert_close(y, held @ w.T, held.abs() @ w.abs().T, factor, bias.double(), k)
