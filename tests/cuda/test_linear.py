"""Linear layers on codebook weights, as the emulated GPU runs them, against float64."""

import pytest
import torch

from hashcompile_runtime.cuda import CudaPath
from tests.cuda.oracle import DTYPES, assert_close, call, layer, numbers

# (N, K, M): around pairs (32), blocks (128 rows of W, 16, 32 and 64 of x) and stages (128 of K), and odd ones.
SHAPES = [
    (1, 1, 1),
    (33, 130, 2),
    (31, 127, 4),
    (160, 256, 1),
    (128, 128, 16),
    (129, 257, 17),
    (40, 384, 65),
    (64, 96, 5),
]


def run(kernels, weight, x, path=CudaPath.AUTO, workspace=True):
    y = torch.full((len(x), len(weight.scale)), float("nan"), dtype=x.dtype)
    given, _kept = call(x, y, kernels.workspace(*y.shape) if workspace else 0, path)
    kernels.linear(weight.native(), given, len(x))
    return y


def check(y, weight, x):
    w, given = weight.centroids(x.dtype), x.double()
    bias = 0.0 if weight.bias is None else weight.bias.double()
    assert_close(y, given @ w.T, given.abs() @ w.abs().T, weight.scale.double(), bias, w.shape[1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_float64(emulated, shape, bits, dtype):
    n, k, m = shape
    weight, x = layer(bits, n, k), numbers((m, k), dtype)
    check(run(emulated, weight, x), weight, x)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("m", [1, 3, 9])
@pytest.mark.parametrize("group_rows", [16, 48])
def test_tables_of_groups(emulated, group_rows, m, bits, dtype):
    weight, x = layer(bits, 150, 40, group_rows, bias=False), numbers((m, 40), dtype)
    check(run(emulated, weight, x), weight, x)


@pytest.mark.parametrize("bits", [2, 5])
@pytest.mark.parametrize("m", [1, 4])
def test_few_rows_on_tensor_cores(emulated, m, bits):
    weight, x = layer(bits, 70, 200), numbers((m, 200), torch.float16)
    check(run(emulated, weight, x, CudaPath.GEMM), weight, x)


@pytest.mark.parametrize("m", [1, 16])
def test_split_k(emulated, m):
    """With a workspace K is split, which takes a second kernel; without, it is not. Both are right."""
    weight, x = layer(4, 32, 1000), numbers((m, 1000), torch.bfloat16)
    before = emulated.launches()
    check(run(emulated, weight, x, workspace=False), weight, x)
    assert emulated.launches() == before + 1
    check(run(emulated, weight, x), weight, x)
    assert emulated.launches() == before + 3


@pytest.mark.parametrize("m", [2, 20])
def test_rows_at_odd_addresses(emulated, m):
    """Numbers that do not lie at 16 bytes are read one by one."""
    weight, x = layer(4, 40, 64), numbers((m * 64 + 1,), torch.float16)[:-1].view(m, 64)
    assert x.data_ptr() % 16
    check(run(emulated, weight, x), weight, x)


@pytest.mark.parametrize("m", [1, 20])
def test_nan_stays_in_its_row(emulated, m):
    weight, x = layer(4, 40, 64), numbers((m, 64), torch.float16)
    x[-1, 7] = float("nan")
    y = run(emulated, weight, x)
    assert y[-1].isnan().all()
    assert not y[:-1].isnan().any()


@pytest.mark.parametrize("shape", [(0, 8, 3), (8, 8, 0), (40, 0, 3), (40, 0, 30)], ids=str)
def test_empty(emulated, shape):
    n, k, m = shape
    weight, x = layer(4, n, k), numbers((m, k), torch.float32)
    y = run(emulated, weight, x)
    assert torch.equal(y, weight.bias.expand(m, n))
