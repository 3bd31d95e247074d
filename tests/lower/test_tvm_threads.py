"""A pool whose threads come late is left alone for a while; all work is done all the same."""

import ctypes
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RUNTIME = HERE.parents[1] / "runtime"
TASKS = 4


@pytest.fixture
def launches(tmp_path: Path) -> Callable[[int, int, int], int]:
    """A pool that nobody has waited for yet."""
    made = tmp_path / "threads.so"
    command = [os.environ.get("CXX", "c++"), "-std=c++17", "-O1", "-shared", "-fPIC", "-pthread"]
    includes = [f"-I{folder}" for folder in (RUNTIME, RUNTIME / "include")]
    subprocess.run([*command, *includes, str(HERE / "tvm_threads.cc"), "-o", str(made)], check=True)
    library = ctypes.CDLL(str(made))
    library.launches_of.restype = ctypes.c_size_t

    def count(regions: int, task_us: int, late_us: int) -> int:
        total = ctypes.c_size_t()
        sizes = (ctypes.c_size_t(size) for size in (regions, TASKS, task_us, late_us))
        asked = int(library.launches_of(*sizes, ctypes.byref(total)))
        assert total.value == regions * TASKS * (TASKS + 1) // 2, "every task once"
        return asked

    return count


def test_a_late_pool_is_asked_ever_less(launches: Callable[[int, int, int], int]) -> None:
    """Behind pauses of 8, 16, 32 and so on: six times in 8 + 16 + ... + 128 + 6 regions, and some more where the
    machine interrupts the work for as long.
    """
    assert 5 <= launches(254, 1, 20_000) <= 60


def test_a_pool_in_time_is_asked_again(launches: Callable[[int, int, int], int]) -> None:
    launches(100, 1, 20_000)
    assert launches(300, 2000, 0) >= 60, "it is worth its threads"


def test_a_wait_within_the_work_is_none(launches: Callable[[int, int, int], int]) -> None:
    """The other thread comes late, and finds tasks left."""
    assert launches(20, 5000, 4000) >= 12
