"""What does not fit is refused before a kernel starts, in words that say what came and what was wanted."""

import pytest
import torch

from hashcompile_runtime import NativeError
from hashcompile_runtime.cuda import (
    Array,
    CudaCall,
    CudaConv,
    CudaDtype,
    CudaPath,
    codebook_weight,
    hashed_weight,
)
from tests.cuda.oracle import array, call, layer, numbers


@pytest.fixture
def weight():
    return layer(4, 32, 16)


@pytest.fixture
def x():
    return numbers((2, 16), torch.float32)


@pytest.fixture
def y():
    return torch.zeros(2, 32)


WRONG = {
    "bits is 9; wanted 1 to 8": {"bits": 9},
    "bits is 0": {"bits": 0},
    "rows is -1": {"size": (-1, 16)},
    "columns is 4611686018427387904": {"size": (32, 2**62)},
    "group_rows is 8; wanted a multiple of 16": {"group_rows": 8},
    "codes have 255 bytes; 4 bits, 32 x 16 need 256": {"codes": 255},
    "codebook has 15 values; wanted 16": {"codebook": 15},
    "codebook has 16 values; wanted 32": {"group_rows": 16},
    "scale has 31 values; wanted 32": {"scale": 31},
    "bias has 1 values; wanted 32": {"bias": 1},
}


@pytest.mark.parametrize("message", WRONG)
def test_weights(emulated, weight, x, y, message):
    wrong = WRONG[message]
    given = {name: array(getattr(weight, name)) for name in ("codes", "codebook", "scale", "bias")}
    given |= {name: Array(given[name].address, n) for name, n in wrong.items() if name in given}
    native = codebook_weight(
        wrong.get("bits", 4), wrong.get("size", (32, 16)), wrong.get("group_rows", 0), *given.values()
    )
    before = emulated.launches()
    with pytest.raises(NativeError, match=message):
        emulated.linear(native, call(x, y)[0], 2)
    assert emulated.launches() == before


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ("x is null", {"x": 0}),
        ("y is null", {"y": 0}),
        ("x is not at a multiple of 4 bytes", {"x": 2}),
        ("dtype 7", {"dtype": 7}),
        ("path 3", {"path": 3}),
        ("workspace is null", {"workspace": Array(0, 64)}),
        ("workspace is not at a multiple of 16", {"workspace": Array(8, 64)}),
    ],
)
def test_calls(emulated, weight, x, y, message, wrong):
    with pytest.raises(NativeError, match=message):
        emulated.linear(weight.native(), call(x, y)[0]._replace(**wrong), 2)


def test_sizes_of_products(emulated, weight, x, y):
    given = call(x, y)[0]
    with pytest.raises(NativeError, match="m is -1"):
        emulated.linear(weight.native(), given, -1)
    with pytest.raises(NativeError, match="m is 4294967296"):
        emulated.linear(weight.native(), given, 2**32)
    with pytest.raises(NativeError, match="5 rows of x; wanted 1 to 4"):
        emulated.linear(weight.native(), given._replace(path=CudaPath.GEMV), 5)
    with pytest.raises(NativeError, match="count is -1"):
        emulated.embedding(weight.native(), given, -1)


@pytest.mark.parametrize(
    ("message", "shape", "groups", "steps"),
    [
        ("the weight has 16 columns; channels and window need 8", (1, 2, 4, 4), 1, (32, 16, 4, 1)),
        ("4 channels and 32 rows in 3 groups", (1, 4, 4, 4), 3, (64, 16, 4, 1)),
        ("groups is 0", (1, 4, 4, 4), 0, (64, 16, 4, 1)),
        ("does not fit the padded height of 1", (1, 4, 1, 4), 1, (64, 16, 4, 1)),
        ("x has the step -1", (1, 4, 4, 4), 1, (64, 16, 4, -1)),
        ("overflow", (2, 4, 4, 4), 1, (2**62, 16, 4, 1)),
        ("overflow", (2**30, 4, 2**30, 2**30), 1, (1, 1, 1, 1)),
    ],
)
def test_convolutions(emulated, weight, x, y, message, shape, groups, steps):
    conv = CudaConv(shape, (2, 2), (1, 1), (0, 0, 0, 0), (1, 1), groups, steps, (0, 0, 0, 0))
    with pytest.raises(NativeError, match=message):
        emulated.conv2d(weight.native(), call(x, y)[0], conv)


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ("seed is 2147483648", {"seed": 2**31}),
        ("side is 1; wanted 16$", {"side": 1}),
        ("values has 255 values; wanted whole tiles of 256", {"values": 255}),
        ("256 values for a weight of 2000000 x 2000000", {"size": (2_000_000, 2_000_000)}),
        ("scale has 2 values; wanted 32", {"scale": 2}),
    ],
)
def test_hashed(emulated, x, y, message, wrong):
    values = numbers((256,), torch.float32)
    native = hashed_weight(
        wrong.get("seed", 1),
        wrong.get("size", (32, 16)),
        wrong.get("side", 16),
        Array(values.data_ptr(), wrong.get("values", 256)),
        Array(values.data_ptr(), wrong.get("scale", 0)) if "scale" in wrong else Array(0, 0),
    )
    with pytest.raises(NativeError, match=message):
        emulated.linear(native, call(x, y)[0], 2)


def test_descriptions_of_another_version(emulated, weight, x, y):
    native = weight.native()
    native.size -= 8
    with pytest.raises(NativeError, match="weight is null or of another version"):
        emulated.linear(native, CudaCall(CudaDtype.F32, x.data_ptr(), y.data_ptr()), 2)
