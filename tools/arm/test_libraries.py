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
TOLD = "library"  # what conftest.py makes a table of
PROGRAM = Path(__file__).parent / "run_tvm"  # of examples/device
ROOT = Path(sys.executable).parent / "root"
EMULATED = ("qemu-aarch64-static", "-cpu", os.environ.get("HC_ARM_CPU", "max"), "-L", str(ROOT))
NAMES = ("digits", "minilm", "mobilenet_v2", "resnet20", "transformer")
# fp32 sums of a few hundred terms in another order, through twenty layers: what `hashcompile.verify` allows them, too.
ROUNDING = 1e-4
# In int8 our kernels give the same bits everywhere, and what TVM computes beside them is exact, or one rounding; but
# for the sums over tokens at MiniLM's end.
SAME_BITS = [f"{name}_int8" for name in NAMES if name != "minilm"]


def test_the_libraries_are_here():
    assert [path.stem for path in LIBRARIES] == [
        f"{name}_{compute}" for name in NAMES for compute in ("float", "int8")
    ]


def inputs_of(data):
    return [data[name] for name in sorted(data.files) if name.startswith("input_")]


def farthest(got, data, name):
    """How far outputs are apart, relative to the largest, and how far they may be."""
    largest = np.abs(data["wanted"]).max()
    return np.abs(got - data["wanted"]).max() / largest, 0 if name in SAME_BITS else ROUNDING


@pytest.mark.parametrize("path", LIBRARIES, ids=lambda path: path.stem)
def test_outputs(path, record_property):
    data = np.load(path.with_suffix(".npz"))
    main = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())["main"]
    got = main(*map(tvm.runtime.tensor, inputs_of(data)))[0].numpy()
    difference, allowed = farthest(got, data, path.stem)
    record_property(TOLD, [path.stem, path.stat().st_size, float(difference), float(allowed)])
    assert difference <= allowed


@pytest.mark.parametrize("name", ["digits_int8", "minilm_int8", "resnet20_int8"])
def test_the_program_in_cpp_gives_the_same(name):
    library = LIBRARIES[0].with_name(f"{name}.so")
    data = np.load(library.with_suffix(".npz"))
    inputs = inputs_of(data)
    told = [f"{each.dtype}:{'x'.join(map(str, each.shape))}" for each in inputs]
    done = subprocess.run(
        [*EMULATED, str(PROGRAM), str(library), *told],
        input=b"".join(each.tobytes() for each in inputs),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    got = np.frombuffer(done.stdout, np.float32).reshape(data["wanted"].shape)
    difference, allowed = farthest(got, data, name)
    assert difference <= allowed
