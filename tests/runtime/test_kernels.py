"""The kernel table, and the choice among its rows."""

import os
import subprocess
import sys

import pytest

from hashcompile_runtime import cpu_features, kernels

AVX2 = {"avx2", "fma"}
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
VNNI = AVX512 | {"avx512vnni", "avx512vbmi"}
NEEDS = {  # all that a kernel of the instruction set may use
    "scalar": set(),
    "avx2": AVX2,
    "avxvnni": AVX2 | {"avxvnni"},
    "avx512": AVX512,
    "avx512vnni256": AVX512 | {"avx512vnni"},
    "avx512vnni": VNNI,
    "avx512bf16": VNNI | {"avx512bf16"},
    "neon": {"asimd"},
    "dotprod": {"asimd", "asimddp"},
    "i8mm": {"asimd", "asimddp", "i8mm"},
}


def room(kernel):
    return kernel.name.removesuffix(f"_{kernel.isa}")


def run(code, **environment):
    command, variables = [sys.executable, "-c", code], os.environ | environment
    result = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_every_room_has_a_scalar_kernel_and_one_selected():
    table = kernels()
    assert len({kernel.name for kernel in table}) == len(table)
    for name in {room(kernel) for kernel in table}:
        rows = [kernel for kernel in table if room(kernel) == name]
        assert "scalar" in {kernel.isa for kernel in rows}
        (selected,) = [kernel for kernel in rows if kernel.selected]
        assert selected.runnable
        assert selected == [kernel for kernel in rows if kernel.runnable][-1]


def test_codebook_kernels_have_every_width():
    names = {kernel.name for kernel in kernels()}
    for kernel in ("codebook_f32", "codebook_i8", "codebook_bf16"):
        assert {f"{kernel}_u{bits}_scalar" for bits in range(1, 9)} <= names


def test_runnable_is_what_the_cpu_has():
    features = {name for name, present in cpu_features().items() if present}
    for kernel in kernels():
        assert kernel.runnable == (NEEDS[kernel.isa] <= features)


@pytest.mark.parametrize("cap", NEEDS)
def test_environment_caps_the_choice(cap):
    print_selected = "import hashcompile_runtime as r; print(*(k.isa for k in r.kernels() if k.selected))"
    for isa in run(print_selected, HC_ISA=cap).split():
        assert NEEDS[isa] <= NEEDS[cap]


def test_unknown_environment_is_refused():
    code = """
import numpy as np
from hashcompile_runtime import NativeError
from hashcompile_runtime._native import Weight
try:
    Weight(np.zeros(128, np.uint8), np.zeros((1, 16)), np.zeros(1), bits=4, columns=1)
except NativeError as error:
    print(error)
"""
    message = f"environment variable HC_ISA: unknown; wanted one of {', '.join(NEEDS)}"
    assert run(code, HC_ISA="sse") == message


def test_runs_without_torch():
    code = """
import sys
sys.modules["torch"] = None
import hashcompile_runtime
from hashcompile_runtime import _native
print(hashcompile_runtime.library_path().is_file())
"""
    assert run(code) == "True"
