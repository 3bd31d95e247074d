"""What a model costs, on this machine or another: latency, cold load, resident memory, bytes on disk.

ONNX files and TVM libraries alike, on the same inputs (bench_inputs.py), each in processes of its own (measure.py).
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from rich.console import Group, RenderableType

from hashcompile.bench_inputs import Arrays, Sizes, by, inputs_for
from hashcompile.core.console import format_bytes, progress, table
from hashcompile.core.errors import ConfigError
from hashcompile.measure import Measured, measure, steps
from hashcompile.model_file import ModelFile, read
from hashcompile.race import Entry
from hashcompile.ssh import Host, measure_on

ENGINES = {
    "onnx": Path(__file__).with_name("bench_onnx.py"),
    "tvm": Path(__file__).with_name("bench_tvm.py"),
}


@dataclass(frozen=True)
class Settings:
    """How to run: the same for every file, so that only the file differs."""

    threads: int = 2
    runs: int = 200
    sizes: Sizes = field(default_factory=Sizes)

    def __post_init__(self) -> None:
        for name in ("threads", "runs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, wanted at least 1")


@dataclass(frozen=True)
class Contender:
    """A file, and who runs it: TVM, ONNX Runtime with our library registered, or ONNX Runtime as it comes."""

    model: ModelFile
    runtime: Literal["tvm", "hashcompile", "onnxruntime"]


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
    ratio: float  # p50_ms over that of the first row: above 1 is slower
    runs: int
    inputs: dict[str, list[int]]


def contenders(paths: Sequence[Path], stock: bool = False) -> list[Contender]:
    """Ours with our library, others as they are; with `stock`, our ONNX files without our library too."""
    found = []
    for model in map(read, paths):
        if model.format == "tvm":
            found.append(Contender(model, "tvm"))
            continue
        found.append(Contender(model, "hashcompile" if model.ours else "onnxruntime"))
        if model.ours and stock:
            found.append(Contender(model, "onnxruntime"))
    return found


def bench(
    entries: Sequence[Contender], settings: Settings, show_progress: bool = True, on: Host | None = None
) -> list[Result]:
    """Measure every contender, here or `on` another machine; the first is what the others are compared with.

    Raises ArtifactError, ConfigError.
    """
    arrays = inputs_for([entry.model for entry in entries], settings.sizes)
    total = steps(len(entries), settings.runs)
    with TemporaryDirectory() as folder, progress("measuring", total, show_progress) as bar:
        racing = [
            entry_of(entry, stored(given, Path(folder) / f"{i}.npz"), settings.threads)
            for i, (entry, given) in enumerate(zip(entries, arrays, strict=True))
        ]
        if on is None:
            measured = measure(racing, settings.runs, bar.advance)
        else:
            measured = measure_on(on, racing, settings.runs, bar.advance)
    first = p50_of(measured[0])
    return [summarise(entry, each, first) for entry, each in zip(entries, measured, strict=True)]


def stored(arrays: Arrays, path: Path) -> Path:
    """As an .npz: np.savez would not take an input of the name `file`."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, value, allow_pickle=False)
    return path


def entry_of(contender: Contender, inputs: Path, threads: int) -> Entry:
    model = contender.model
    request = {
        "files": [str(file) for file in model.files],
        "threads": threads,
        "library": contender.runtime == "hashcompile",
        "machine": model.machine,
        "cuda": model.cuda,
        "names": [declared.name for declared in model.inputs],
    }
    return Entry(str(model.path), ENGINES[model.format], request, [{"inputs": str(inputs)}])


def summarise(entry: Contender, measured: Measured, first: float) -> Result:
    """`first`: the p50 of the first row."""
    latencies = np.concatenate(measured.latencies)
    p50, p90, p99 = (shown(float(value)) for value in np.percentile(latencies, (50, 90, 99)))
    facts = [load["cases"][0] for load in measured.loads]
    return Result(
        file=str(entry.model.path),
        runtime=entry.runtime,
        file_bytes=entry.model.nbytes,
        load_ms=median(load["load_ms"] for load in measured.loads),
        first_ms=median(fact["first_ms"] for fact in facts),
        resident_bytes=int(median(fact["resident_bytes"] for fact in facts)),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        ratio=p50 / first,
        runs=len(latencies),
        inputs=facts[-1]["inputs"],
    )


def p50_of(measured: Measured) -> float:
    return shown(float(np.median(np.concatenate(measured.latencies))))


def shown(milliseconds: float) -> float:
    """To the tenth of a microsecond, as the table has it: a ratio is of the numbers one sees."""
    return max(round(milliseconds, 4), 1e-4)


def as_table(results: Sequence[Result]) -> RenderableType:
    columns = ["file", "runtime", "inputs", ">on disk", ">cold load ms", ">first run ms", ">resident"]
    columns += [">p50 ms", ">p90 ms", ">p99 ms", ">p50 / first"]
    rows = [
        (
            Path(row.file).name,
            row.runtime,
            ", ".join(f"{name} {by(shape)}" for name, shape in row.inputs.items()),
            format_bytes(row.file_bytes),
            f"{row.load_ms:.1f}",
            f"{row.first_ms:.2f}",
            format_bytes(row.resident_bytes),
            *(f"{value:.4f}" for value in (row.p50_ms, row.p90_ms, row.p99_ms)),
            f"{row.ratio:.2f}",
        )
        for row in results
    ]
    caption = "\np50 / first: this file's p50 over the first file's; below 1 is faster than the first, above 1 slower"
    return Group(table(columns, rows), caption)
