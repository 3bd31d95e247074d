"""What a model costs on this machine: latency, cold load, resident memory, bytes on disk.

Each file lives in a fresh process of its own, so that memory and load time are its own. The processes take
short turns, because the speed of a shared machine drifts by more than the difference one looks for: latencies
of one round saw the same machine, and the ratio is the median over the rounds.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, uses_external_data
from rich.table import Table

from hashcompile.core.console import Tracker, format_bytes, progress, table
from hashcompile.core.errors import ArtifactError, ConfigError
from hashcompile.core.onnx_op import DOMAIN

WORKER = Path(__file__).with_name("bench_worker.py")
LOADS = 3  # fresh processes a file, for a load time that is not one accident
TURN = 10  # runs before the next file has its turn
WARMUP = 2  # runs of a turn that fill the caches again, and are not counted
SETTLE = 0.005  # seconds: longer than an idle ONNX Runtime thread spins before it leaves the core to others


@dataclass(frozen=True)
class Settings:
    """How to run: the same for every file, so that only the file differs."""

    threads: int = 2
    runs: int = 200
    batch: int = 1
    dims: Mapping[str, int] = field(default_factory=dict)  # of symbolic dimensions; the rest are 1
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)  # by the name of the input
    inputs: Path | None = None  # an .npz with the arrays themselves, by the name of the input

    def __post_init__(self) -> None:
        for name in ("threads", "runs", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, wanted at least 1")


@dataclass(frozen=True)
class Contender:
    """A file, and who runs it: ONNX Runtime with our library registered, or ONNX Runtime as it comes."""

    path: Path
    library: bool

    @property
    def runtime(self) -> str:
        return "hashcompile" if self.library else "onnxruntime"


@dataclass(frozen=True)
class Result:
    """One row. Times in milliseconds, sizes in bytes."""

    file: str
    runtime: str
    file_bytes: int  # with its external data
    load_ms: float  # file to session, in a fresh process, the file out of the system's cache
    first_ms: float  # the first run, which may still pack weights
    resident_bytes: int  # what loading and one run added to the process
    p50_ms: float
    p90_ms: float
    p99_ms: float
    ratio: float  # latency over that of the first row, median of the rounds: above 1 is slower
    runs: int
    inputs: Mapping[str, Sequence[int]]


def read_onnx(path: Path) -> onnx.ModelProto:
    """The structure of an ONNX file, without its external data. Raises ArtifactError for anything else."""
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file")
    if is_archive(path):
        raise ArtifactError(
            f'{path}: an archive, not an ONNX file: hc.load("{path}").export_onnx(...) makes one'
        )
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise ArtifactError(f"{path}: not an ONNX file, or cut short ({error})") from error
    if not model.ir_version or not model.HasField("graph"):
        raise ArtifactError(f"{path}: not an ONNX file: it holds no graph")
    return model


def is_archive(path: Path) -> bool:
    """Does it begin as a zip, and so perhaps as an `.hc` artifact?"""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def files_of(path: Path, model: onnx.ModelProto) -> list[Path]:
    """The file, and the files beside it that hold its external data."""
    names = {
        ExternalDataInfo(tensor).location for tensor in model.graph.initializer if uses_external_data(tensor)
    }
    beside = [path.parent / name for name in sorted(names)]
    for missing in (file for file in beside if not file.is_file()):
        raise ArtifactError(f"{path}: its weights are in {missing.name}, which is not beside it")
    return [path, *beside]


def is_ours(model: onnx.ModelProto) -> bool:
    """Does it have nodes that our library runs?"""
    return any(node.domain == DOMAIN for node in model.graph.node)


def contenders(paths: Sequence[Path], stock: bool = False) -> list[Contender]:
    """Ours with our library, others as they are; with `stock`, ours without our library too."""
    found = []
    for path in paths:
        ours = is_ours(read_onnx(path))
        found.append(Contender(path, library=ours))
        if ours and stock:
            found.append(Contender(path, library=False))
    return found


def bench(entries: Sequence[Contender], settings: Settings, show_progress: bool = True) -> list[Result]:
    """Measure every contender; the first is what the others are compared with."""
    check_names(entries, settings)
    rounds = -(-settings.runs // TURN)
    with ExitStack() as stack:
        bar = stack.enter_context(progress("measuring", len(entries) * (LOADS + rounds), show_progress))
        loads = [[cold_start(entry, settings, bar) for _ in range(LOADS - 1)] for entry in entries]
        workers = [stack.enter_context(worker(entry, settings)) for entry in entries]
        bar.advance(len(entries))
        turns = [take_turns(workers, first, bar) for first in range(rounds)]
        loads = [[*earlier, last.facts] for earlier, last in zip(loads, workers, strict=True)]
    by_entry = list(zip(*turns, strict=True))
    return [
        summarise(entry, facts, latencies, by_entry[0])
        for entry, facts, latencies in zip(entries, loads, by_entry, strict=True)
    ]


def check_names(entries: Sequence[Contender], settings: Settings) -> None:
    """A name that no file has is a slip of the pen, and would be measured as if nothing had been said."""
    models = [read_onnx(entry.path) for entry in entries]
    inputs = [node for model in models for node in model.graph.input]
    dims = {dim.dim_param for node in inputs for dim in node.type.tensor_type.shape.dim} - {""}
    for what, given, known in (
        ("dimension", settings.dims, dims),
        ("input", settings.shapes, {node.name for node in inputs}),
    ):
        if unknown := sorted(set(given) - known):
            raise ConfigError(
                f"no {what} is named {unknown[0]!r}; there is {', '.join(sorted(known)) or 'none'}"
            )


class Worker:
    """A process with one loaded model; see bench_worker.py for the words it understands."""

    def __init__(self, process: subprocess.Popen[str], path: Path) -> None:
        self.process, self.path = process, path
        self.facts: dict[str, Any] = {}

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the process that ran it died"}
        if "error" in answer:
            raise ArtifactError(f"{self.path}: {answer['error']}")
        return answer


@contextmanager
def worker(entry: Contender, settings: Settings) -> Iterator[Worker]:
    """A fresh interpreter with the contender loaded and run once."""
    request = {
        "files": [str(file) for file in files_of(entry.path, read_onnx(entry.path))],
        "library": entry.library,
        "threads": settings.threads,
        "batch": settings.batch,
        "dims": dict(settings.dims),
        "shapes": {name: list(shape) for name, shape in settings.shapes.items()},
        "inputs": str(settings.inputs) if settings.inputs else None,
    }
    # -P: the worker's own folder must not shadow the standard library
    command = [sys.executable, "-P", str(WORKER)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        try:
            running = Worker(process, entry.path)
            running.facts = running.ask(request)
            yield running
        finally:
            process.kill()


def cold_start(entry: Contender, settings: Settings, bar: Tracker) -> dict[str, Any]:
    with worker(entry, settings) as fresh:
        bar.advance()
        return fresh.facts


def take_turns(workers: Sequence[Worker], first: int, bar: Tracker) -> list[list[float]]:
    """One round; another contender begins each time, for the first after a pause finds a cooler machine."""
    order = [(first + i) % len(workers) for i in range(len(workers))]
    latencies: list[list[float]] = [[] for _ in workers]
    for i in order:
        time.sleep(SETTLE)
        answer = workers[i].ask({"runs": TURN, "warmup": WARMUP})
        latencies[i] = [nanoseconds / 1e6 for nanoseconds in answer["latencies"]]
        bar.advance()
    return latencies


def summarise(
    entry: Contender,
    facts: Sequence[Mapping[str, Any]],
    rounds: Sequence[Sequence[float]],
    reference: Sequence[Sequence[float]],
) -> Result:
    files = files_of(entry.path, read_onnx(entry.path))
    p50, p90, p99 = np.percentile(np.concatenate([np.asarray(turn) for turn in rounds]), (50, 90, 99))
    return Result(
        file=str(entry.path),
        runtime=entry.runtime,
        file_bytes=sum(file.stat().st_size for file in files),
        load_ms=median(fact["load_ms"] for fact in facts),
        first_ms=median(fact["first_ms"] for fact in facts),
        resident_bytes=int(median(fact["resident_bytes"] for fact in facts)),
        p50_ms=float(p50),
        p90_ms=float(p90),
        p99_ms=float(p99),
        ratio=median(median(ours) / median(theirs) for ours, theirs in zip(rounds, reference, strict=True)),
        runs=sum(len(turn) for turn in rounds),
        inputs=facts[-1]["inputs"],
    )


def as_table(results: Sequence[Result]) -> Table:
    columns = ["file", "runtime", ">on disk", ">cold load ms", ">first run ms", ">resident"]
    columns += [">p50 ms", ">p90 ms", ">p99 ms", ">x first"]
    rows = [
        (
            Path(row.file).name,
            row.runtime,
            format_bytes(row.file_bytes),
            f"{row.load_ms:.1f}",
            f"{row.first_ms:.2f}",
            format_bytes(row.resident_bytes),
            *(f"{value:.3f}" for value in (row.p50_ms, row.p90_ms, row.p99_ms)),
            f"{row.ratio:.2f}",
        )
        for row in results
    ]
    return table(columns, rows)
