"""Every row of our kernel table that this CPU can run, on one weight matrix and one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
from rich.table import Table

import hashcompile_runtime as hcrt
from hashcompile.core import packing
from hashcompile.core.console import progress, table
from hashcompile_runtime import _native

from .limits import Machine, NoProbeError

SHAPE = (4096, 1024)  # N x K: large enough for the call from Python not to count
ROWS = (1, 8, 128)  # M
COMPUTE = {
    "_i8_": _native.INT8,
    "_f32_": _native.FLOAT,
    "_bf16_": _native.BF16,
}  # by the activation type in a kernel's name


@dataclass(frozen=True)
class KernelTime:
    kernel: str
    isa: str
    bits: int
    selected: bool
    microseconds: dict[int, float]  # by M; empty with a reason
    of_limit: dict[int, float]  # by M, of the time that this machine needs at least; int8 kernels only
    reason: str = ""


def measure(machine: Machine, seconds: float) -> list[KernelTime]:
    """`seconds` for each kernel and M, and one run at least."""
    rows = [kernel for kernel in hcrt.kernels() if kernel.bits and kernel.runnable]
    found = []
    with progress("our kernels", len(rows)) as bar:
        for kernel in rows:
            found.append(_measure(kernel, machine, seconds))
            bar.advance()
    return found


def _measure(kernel: _native.KernelInfo, machine: Machine, seconds: float) -> KernelTime:
    facts = kernel.name, kernel.isa, kernel.bits, kernel.selected
    compute = [value for mark, value in COMPUTE.items() if mark in kernel.name]
    if not compute:
        return KernelTime(*facts, {}, {}, f"no way from Python to a kernel named {kernel.name}")
    try:
        weight = _weight(kernel, compute[0])
        rng = np.random.default_rng(1)
        inputs = {m: rng.normal(size=(m, SHAPE[1])).astype(np.float32) for m in ROWS}
        times = {m: _median(lambda x=x: weight.linear(x), seconds) for m, x in inputs.items()}
    except hcrt.NativeError as error:
        return KernelTime(*facts, {}, {}, str(error))
    shares = _shares(machine, kernel.bits, times) if compute[0] == _native.INT8 else {}
    return KernelTime(*facts, {m: 1e6 * value for m, value in times.items()}, shares)


def _weight(kernel: _native.KernelInfo, compute: int) -> _native.Weight:
    N, K = SHAPE
    rng = np.random.default_rng(0)
    codes = packing.pack(rng.integers(0, 1 << kernel.bits, (N, K), np.uint8), kernel.bits)
    table = rng.normal(size=(1, 1 << kernel.bits)).astype(np.float32)
    return _native.Weight(
        codes, table, np.ones(N), bits=kernel.bits, columns=K, compute=compute, isa=kernel.isa
    )


def _median(run: Callable[[], object], seconds: float) -> float:
    """Seconds of one run."""
    run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return median(times)


def _shares(machine: Machine, bits: int, times: dict[int, float]) -> dict[int, float]:
    N, K = SHAPE
    try:
        return {
            m: machine.bound(N * K * bits // 8, m * N * K, 1).milliseconds / 1e3 / t for m, t in times.items()
        }
    except NoProbeError:
        return {}


def as_table(found: list[KernelTime]) -> Table:
    """Microseconds, and in brackets the share of the machine's limit."""
    rows = [
        (
            kernel.kernel + (" *" if kernel.selected else ""),
            kernel.isa,
            str(kernel.bits),
            *(_cell(kernel, m) for m in ROWS),
            kernel.reason,
        )
        for kernel in found
    ]
    title = f"our kernels, {SHAPE[0]} x {SHAPE[1]}, one thread: us (share of the limit); * is chosen here"
    return table(("kernel", "isa", ">bits", *(f">M = {m}" for m in ROWS), ""), rows, title)


def _cell(kernel: KernelTime, m: int) -> str:
    if m not in kernel.microseconds:
        return "-"
    share = f" ({kernel.of_limit[m]:.0%})" if m in kernel.of_limit else ""
    return f"{kernel.microseconds[m]:.1f}{share}"
