"""On ARM: TVM's runtime with a library of libraries.py gives the outputs that the library for x86 gave."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

os.environ["TVM_NUM_THREADS"] = "2"
os.environ["TVM_THREAD_POOL_SPIN_COUNT"] = "0"  # emulated spinning takes minutes where processors are few
import tvm
from tvm import relax

LIBRARIES = sorted((Path(__file__).parent / "libraries").glob("*.so"))
PROGRAM = Path(__file__).parent / "run_tvm"  # of examples/device
ROOT = Path(sys.executable).parent / "root"
EMULATED = ("qemu-aarch64-static", "-cpu", os.environ.get("HC_ARM_CPU", "max"), "-L", str(ROOT))
NAMES = ("digits", "mobilenet_v2", "resnet20", "transformer")
REAL = "minilm"  # where the machine that made the libraries has it
# fp32 sums of a few hundred terms in another order, through twenty layers: what `hashcompile.verify` allows them, too.
ROUNDING = 1e-4
# In int8 our kernels give the same bits everywhere, and what TVM computes beside them is exact, or one rounding; but
# for the sums over tokens at MiniLM's end.
SAME_BITS = "int8"


def test_the_libraries_are_here():
    made = [path.stem for path in LIBRARIES if not path.stem.startswith(REAL)]
    assert made == [f"{name}_{compute}" for name in NAMES for compute in ("float", "int8")]


def inputs_of(data):
    return [data[name] for name in sorted(data.files) if name.startswith("input_")]


@pytest.mark.parametrize("path", LIBRARIES, ids=lambda path: path.stem)
def test_outputs(path):
    data = np.load(path.with_suffix(".npz"))
    wanted = data["wanted"]
    main = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())["main"]
    got = main(*map(tvm.runtime.tensor, inputs_of(data)))[0].numpy()
    exact = path.stem.endswith(SAME_BITS) and not path.stem.startswith(REAL)
    allowed = 0 if exact else ROUNDING * np.abs(wanted).max()
    assert np.abs(got - wanted).max() <= allowed


@pytest.mark.parametrize("name", ["digits_int8", "resnet20_int8"])
def test_the_program_in_cpp_gives_the_same(name):
    data = np.load(LIBRARIES[0].with_name(f"{name}.npz"))
    (inputs,) = inputs_of(data)
    library = LIBRARIES[0].with_name(f"{name}.so")
    told = f"{inputs.dtype}:{'x'.join(map(str, inputs.shape))}"
    done = subprocess.run(
        [*EMULATED, str(PROGRAM), str(library), told], input=inputs.tobytes(), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.frombuffer(done.stdout, np.float32), data["wanted"].ravel())
