"""Arrays beside memory that may not be touched: one byte too many ends the process."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

PAGE = mmap.PAGESIZE
# Where an array lies: its last byte before such a page; its first byte behind one; one byte before the end, which is
# an odd address for bytes and the nearest possible for floats.
PLACES = ("end", "start", "odd")
_LIBC = ctypes.CDLL(None, use_errno=True)


def _forbid(address: int) -> None:
    if _LIBC.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(PAGE), 0):
        raise OSError(ctypes.get_errno(), "mprotect")


def guarded(array: npt.NDArray[Any], place: str = "end") -> npt.NDArray[Any]:
    """A copy of `array` at `place` between two pages that may not be touched."""
    gap = array.itemsize if place == "odd" else 0
    inner = -(-(array.nbytes + gap) // PAGE) * PAGE or PAGE
    memory = (ctypes.c_uint8 * (inner + 2 * PAGE)).from_buffer(mmap.mmap(-1, inner + 2 * PAGE))
    _forbid(ctypes.addressof(memory))
    _forbid(ctypes.addressof(memory) + PAGE + inner)
    start = PAGE if place == "start" else PAGE + inner - array.nbytes - gap
    copy = np.ndarray(array.shape, array.dtype, memory, start)
    copy[...] = array
    return copy
