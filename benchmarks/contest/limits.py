"""What this machine can do at best, measured in the same run by probe.c: bytes read, bytes multiplied.

Bandwidth depends on where the bytes lie, so it is measured on as many of them as the model reads in one run, over and
over: 8 MiB of codes that stay in the last-level cache are compared with that cache, 200 MiB with memory. The peak is
that of the CPU's own dot product of bytes with operands in registers. A rate is that of the median of many short pieces
of work, and the best of a few tries.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_name("probe.c")
TRIES, SECONDS = 5, 0.05
SMALLEST = 1 << 15  # bytes: below it, a pass over the data is shorter than reading the clock


class NoProbeError(Exception):
    """The probe cannot be built here; says why."""


@dataclass(frozen=True)
class Bound:
    """The least time for one inference, and what it is bound by."""

    milliseconds: float
    by: str  # "bytes" or "MACs"


@dataclass
class Machine:
    """The probe, and what it has measured so far."""

    build: Path
    int8: dict[int, float] = field(default_factory=dict)  # threads -> multiply-adds a second
    read: dict[tuple[int, int], float] = field(default_factory=dict)  # (bytes, threads) -> bytes a second

    def bound(self, weight_bytes: int, macs: int, threads: int) -> Bound:
        """max(bytes / bandwidth, MACs / peak). Raises NoProbeError."""
        reading = weight_bytes / self.read_rate(weight_bytes, threads)
        peak = self.int8_rate(threads)
        multiplying = macs / peak if peak else 0.0
        return Bound(1e3 * max(reading, multiplying), "bytes" if reading >= multiplying else "MACs")

    def int8_rate(self, threads: int) -> float:
        if threads not in self.int8:
            probe = _library(self.build)
            self.int8[threads] = max(probe.int8_rate(threads, SECONDS) for _ in range(TRIES))
        return self.int8[threads]

    def read_rate(self, count: int, threads: int) -> float:
        place = max(count, SMALLEST), threads
        if place not in self.read:
            probe, data = _library(self.build), _aligned(place[0])
            address = data.ctypes.data_as(ctypes.c_void_p)
            self.read[place] = max(
                probe.read_rate(address, data.size, threads, SECONDS) for _ in range(TRIES)
            )
        return self.read[place]

    def facts(self) -> dict[str, object]:
        """For the JSON: everything that was measured."""
        reads = [
            {"bytes": size, "threads": n, "GB_per_s": rate / 1e9} for (size, n), rate in self.read.items()
        ]
        peaks = [{"threads": n, "GMAC_per_s": rate / 1e9} for n, rate in self.int8.items()]
        return {
            "how": "probe.c: median of short pieces, best of the tries",
            "tries": TRIES,
            "read": reads,
            "int8": peaks,
        }


def _aligned(count: int) -> np.ndarray:
    """`count` bytes, rounded up to whole lines, that begin at a line."""
    size = -(-count // 64) * 64
    buffer = np.ones(size + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    return buffer[start : start + size]


@cache
def _library(build: Path) -> ctypes.CDLL:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise NoProbeError("no C compiler: the machine's limit is not measured")
    build.mkdir(parents=True, exist_ok=True)
    target = build / "probe.so"
    command = [
        compiler,
        "-O3",
        "-march=native",
        "-shared",
        "-fPIC",
        "-pthread",
        str(SOURCE),
        "-o",
        str(target),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoProbeError(f"the probe does not compile: {done.stderr.strip().splitlines()[:1]}")
    library = ctypes.CDLL(str(target))
    library.read_rate.restype = library.int8_rate.restype = ctypes.c_double
    library.read_rate.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_double]
    library.int8_rate.argtypes = [ctypes.c_int, ctypes.c_double]
    return library
