"""What our session keeps in memory, beside what it would keep if it held the weights decoded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from hashcompile.core.console import format_bytes, table
from hashcompile.inspector import inspect
from hashcompile.race import Entry, worker

from .peer import ONNX_ENGINE
from .standings import Standing


@dataclass(frozen=True)
class Footprint:
    """Bytes. `resident` includes what any session takes; `empty` is that part."""

    subject: str
    packed: int  # codes, tables, scales in the file
    dense: int  # the same weights as fp32
    resident: int  # loading and one run, in a fresh process
    empty: int  # the same for a model that computes nothing

    @property
    def own(self) -> int:
        """The model's part: weights as they are kept, and buffers for activations."""
        return self.resident - self.empty

    @property
    def verdict(self) -> str:
        """Less than the dense weights is proof; more may be activations."""
        return "no dense copy" if self.own < self.dense else "activations outweigh it"


def footprint(file: Path, standing: Standing, empty: int) -> Footprint | None:
    """None where nothing was measured, or the file has no encoded weight."""
    if standing.resident_bytes is None:
        return None
    contents = inspect(file)
    sizes = [layer.shape for layer in contents.layers if layer.shape and layer.shared_with is None]
    dense = sum(4 * N * K for N, K in sizes)
    packed = contents.compressed_bytes
    return Footprint(standing.subject, packed, dense, standing.resident_bytes, empty) if dense else None


def empty_session(file: Path, threads: int) -> int:
    """Resident bytes of a session with our library that computes nothing."""
    inputs = file.with_suffix(".npz")
    np.savez(inputs, input=np.ones((1, 1), np.float32))
    request = {"files": [str(file)], "library": True, "threads": threads}
    with worker(Entry(file.name, ONNX_ENGINE, request, [{"inputs": str(inputs)}])) as running:
        return int(running.facts["cases"][0]["resident_bytes"])


def as_table(footprints: Iterable[Footprint]) -> Table:
    rows = [
        (line.subject, *map(format_bytes, (line.packed, line.dense, line.resident, line.own)), line.verdict)
        for line in footprints
    ]
    return table(("ours in memory", ">packed", ">as fp32", ">resident", ">above an empty session", ""), rows)
