"""exp, erf, tanh and the logistic function against float64, and the same bits from every instruction set."""

import ctypes
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from hashcompile_runtime import cpu_features

HERE = Path(__file__).parent
FLAGS = {
    "base": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512f": ["-mavx512f", "-mfma", "-mprefer-vector-width=512"],
}
EXACT = {"exp_f32": torch.exp, "erf_f32": torch.erf, "tanh_f32": torch.tanh, "sigmoid_f32": torch.sigmoid}
ULPS = {"exp_f32": 1.0, "erf_f32": 5.0, "tanh_f32": 4.5, "sigmoid_f32": 2.5}  # as vector_math.h says


SIGNLESS = ("erf_f32", "tanh_f32")  # take no negative number, and no NaN


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """The functions as the runtime compiles them, for every instruction set of this CPU."""
    folder, features = tmp_path_factory.mktemp("vector_math"), cpu_features()
    compiler = os.environ.get("CXX", "c++")
    options = [
        "-std=c++17",
        "-O3",
        "-ffp-contract=off",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-shared",
        "-fPIC",
    ]
    found = {}
    for isa, flags in FLAGS.items():
        if features.get(isa, isa == "base"):
            library = folder / f"{isa}.so"
            include = f"-I{HERE.parents[1] / 'runtime' / 'kernels'}"
            command = [compiler, *options, *flags, include, str(HERE / "vector_math.cc"), "-o", str(library)]
            subprocess.run(command, check=True)
            found[isa] = ctypes.CDLL(str(library))
    return found


def apply(library, name, x):
    y = np.empty_like(x)
    pointers = (array.ctypes.data_as(ctypes.c_void_p) for array in (x, y))
    getattr(library, f"{name}_array")(*pointers, ctypes.c_size_t(x.size))
    return y


def floats(name, step):
    """Every `step`-th float that the function takes, with the infinities."""
    positive = np.append(np.arange(0, 0x7F800001, step, np.uint32), np.uint32(0x7F800000))
    bits = positive if name in SIGNLESS else np.concatenate([positive, positive | np.uint32(0x80000000)])
    return bits.view(np.float32)


@pytest.mark.parametrize("name", EXACT)
def test_close_to_float64(libraries, name):
    x = floats(name, 1009)
    exact = EXACT[name](torch.from_numpy(x).double()).numpy()
    with np.errstate(over="ignore", under="ignore"):
        rounded = exact.astype(np.float32)
        spacing = np.spacing(np.abs(rounded)).astype(np.float64)
    y = apply(libraries["base"], name, x)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(y[~finite], rounded[~finite])
    off = np.abs(y[finite] - exact[finite]) / spacing[finite]
    assert off.max() <= ULPS[name], f"{off.max():.2f} ulp at {x[finite][off.argmax()]!r}"


@pytest.mark.parametrize("name", EXACT)
def test_every_instruction_set_agrees(libraries, name):
    x = np.concatenate([floats(name, 10007), np.float32([np.nan, -np.nan])])
    expected = apply(libraries["base"], name, x).view(np.uint32)
    for library in libraries.values():
        for n in (x.size, 1, 7):  # the tail of a vector loop is another code
            np.testing.assert_array_equal(apply(library, name, x[:n]).view(np.uint32), expected[:n])


@pytest.mark.parametrize("name", [name for name in EXACT if name not in SIGNLESS])
def test_nan_stays(libraries, name):
    assert np.isnan(apply(libraries["base"], name, np.full(19, np.nan, np.float32))).all()
