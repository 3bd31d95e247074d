"""A pool whose threads come late is left alone for a while; all work is done all the same."""

import ctypes
import itertools
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
RUNTIME = HERE.parents[1] / "runtime"
TASKS = 4


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    made = tmp_path_factory.mktemp("threads") / "threads.so"
    command = [os.environ.get("CXX", "c++"), "-std=c++17", "-O1", "-shared", "-fPIC", "-pthread"]
    command.append("-Wl,-Bsymbolic")  # its pool, also where other tests have loaded TVM's
    includes = [f"-I{folder}" for folder in (RUNTIME, RUNTIME / "include")]
    subprocess.run([*command, *includes, str(HERE / "tvm_threads.cc"), "-o", str(made)], check=True)
    library = ctypes.CDLL(str(made))
    library.launches_of.restype = ctypes.c_size_t
    return library


def asked(library: ctypes.CDLL, work_us: list[int], wait_us: list[int]) -> list[int]:
    """The regions that the pool is asked for."""
    asks = np.zeros(len(work_us), bool)
    times = [np.array(each, np.uintp) for each in (work_us, wait_us)]
    pointers = (each.ctypes.data_as(ctypes.c_void_p) for each in (*times, asks))
    library.asked(ctypes.c_size_t(len(work_us)), *pointers)
    return [int(place) for place in np.flatnonzero(asks)]


def test_pauses_double_and_end(library: ctypes.CDLL) -> None:
    late = asked(library, [100] * 40_000, [5000] * 40_000)
    pauses = [b - a - 1 for a, b in itertools.pairwise(late)]
    assert pauses[:10] == [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
    assert set(pauses[9:]) == {4096}


def test_a_pool_in_time_is_trusted_again(library: ctypes.CDLL) -> None:
    """Behind 1 + 8 + 1 + 16 + 1 + 32 + 1 + 64 regions; once late after many in time, it pauses for 8 again."""
    waits = [5000] * 124 + [0] * 60 + [5000] + [0] * 20
    regions = asked(library, [100] * len(waits), waits)
    assert regions[:4] == [0, 9, 26, 59] and regions[4:] == [*range(124, 185), *range(193, 205)]


@pytest.mark.parametrize(
    ("work", "wait"), [(100, 99), (5, 19), (0, 0)], ids=["shorter than the work", "noise", "none"]
)
def test_such_a_wait_is_none(library: ctypes.CDLL, work: int, wait: int) -> None:
    assert len(asked(library, [work] * 50, [wait] * 50)) == 50


def test_a_late_pool_is_asked_ever_less(library: ctypes.CDLL) -> None:
    total = ctypes.c_size_t()
    sizes = map(ctypes.c_size_t, (254, TASKS, 20_000))
    launches = library.launches_of(*sizes, ctypes.byref(total))
    assert 1 <= launches <= 60
    assert total.value == 254 * TASKS * (TASKS + 1) // 2, "every task once"
