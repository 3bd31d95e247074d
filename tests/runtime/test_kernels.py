"""The kernel table, and the choice among its rows."""

import os
import subprocess
import sys

import pytest

from hashcompile_runtime import cpu_features, kernels

NEEDS = {
    "scalar": set(),
    "avx2": {"avx2", "fma"},
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "avx512vnni": {"avx512vnni", "avx512vbmi"},
}
ORDER = list(NEEDS)


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
        assert selected.isa == max((k.isa for k in rows if k.runnable), key=ORDER.index)


def test_codebook_kernels_have_every_width():
    names = {kernel.name for kernel in kernels()}
    for kernel in ("codebook_f32", "codebook_i8"):
        assert {f"{kernel}_u{bits}_scalar" for bits in range(1, 9)} <= names


def test_runnable_is_what_the_cpu_has():
    features = {name for name, present in cpu_features().items() if present}
    for kernel in kernels():
        needed = set().union(*(NEEDS[isa] for isa in ORDER[: ORDER.index(kernel.isa) + 1]))
        assert kernel.runnable == (needed <= features)


@pytest.mark.parametrize("isa", ORDER)
def test_environment_caps_the_choice(isa):
    print_selected = "import hashcompile_runtime as r; print(*(k.isa for k in r.kernels() if k.selected))"
    chosen = set(run(print_selected, HC_ISA=isa).split())
    assert max(map(ORDER.index, chosen)) <= ORDER.index(isa)


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
    message = "environment variable HC_ISA: unknown; wanted scalar, avx2, avx512 or avx512vnni"
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
