"""What a model costs on this machine: latency, cold load, resident memory, bytes on disk.

Each file lives in a fresh process of its own, and the processes take turns (race.py says why). Every file gets inputs
of the same size: where one file fixes a size, so do all.
"""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, uses_external_data
from rich.console import Group, RenderableType

from hashcompile.core.console import Tracker, format_bytes, progress, table
from hashcompile.core.errors import ArtifactError, ConfigError
from hashcompile.core.onnx_op import DOMAIN
from hashcompile.race import Entry, Turn, Worker, in_turn, worker

ENGINE = Path(__file__).with_name("bench_onnx.py")
LOADS = 3  # fresh processes a file, for a load time that is not one accident
TURN = Turn(runs=10)  # before the next file has its turn


@dataclass(frozen=True)
class Settings:
    """How to run: the same for every file, so that only the file differs."""

    threads: int = 2
    runs: int = 200
    batch: int | None = None  # of a symbolic first dimension; None: what another file fixes, else 1
    dims: Mapping[str, int] = field(default_factory=dict)  # of symbolic dimensions; the rest are 1
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)  # by the name of the input
    inputs: Path | None = None  # an .npz with the arrays themselves, by the name of the input

    def __post_init__(self) -> None:
        for name in ("threads", "runs", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}, wanted at least 1")


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
    ratio: float  # p50_ms over that of the first row: above 1 is slower
    runs: int
    inputs: Mapping[str, Sequence[int]]


def read_onnx(path: Path) -> onnx.ModelProto:
    """The structure of an ONNX file, without its external data. Raises ArtifactError for anything else."""
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
    """Does it begin as a zip, and so perhaps as an `.hc` artifact? Raises ArtifactError if it cannot be read."""
    if path.is_dir():
        raise ArtifactError(f"{path} is a directory: give a file in it")
    if not path.exists():
        raise ArtifactError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    if not start:
        raise ArtifactError(f"{path} is empty: 0 bytes")
    return start == b"PK\x03\x04"


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
    shapes = settle(entries, settings)
    rounds = -(-settings.runs // TURN.runs)
    with ExitStack() as stack:
        bar = stack.enter_context(progress("measuring", len(entries) * (LOADS + rounds), show_progress))
        racing = [entry_of(entry, sizes, settings) for entry, sizes in zip(entries, shapes, strict=True)]
        loads = [[cold_start(entry, bar) for _ in range(LOADS - 1)] for entry in racing]
        workers = [stack.enter_context(worker(entry)) for entry in racing]
        bar.advance(len(entries))
        turns = [take_turns(workers, first, bar) for first in range(rounds)]
        loads = [[*earlier, last.facts] for earlier, last in zip(loads, workers, strict=True)]
    by_entry = [np.concatenate(latencies) for latencies in zip(*turns, strict=True)]
    return [
        summarise(entry, facts, latencies, by_entry[0])
        for entry, facts, latencies in zip(entries, loads, by_entry, strict=True)
    ]


def check_names(entries: Sequence[Contender], settings: Settings) -> None:
    """A name that no file has is a slip of the pen, and would be measured as if nothing had been said."""
    models = [read_onnx(entry.path) for entry in entries]
    inputs = [declared for model in models for declared in inputs_of(model)]
    symbols = {size for declared in inputs for size in declared.shape if isinstance(size, str)} - {""}
    for what, given, known in (
        ("dimension", settings.dims, symbols),
        ("input", settings.shapes, {declared.name for declared in inputs}),
    ):
        if unknown := sorted(set(given) - known):
            raise ConfigError(
                f"no {what} is named {unknown[0]!r}; there is {', '.join(sorted(known)) or 'none'}"
            )


@dataclass(frozen=True)
class Input:
    """An input as the file declares it; a size that is a string is symbolic, and may have no name."""

    name: str
    shape: tuple[int | str, ...]
    dtype: np.dtype[Any] | None  # None: not a tensor of numbers


def inputs_of(model: onnx.ModelProto) -> list[Input]:
    """What a caller has to give: old files list their weights among the inputs too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    found = []
    for node in model.graph.input:
        kind = node.type.tensor_type
        shape = tuple(dim.dim_param if dim.dim_value < 1 else dim.dim_value for dim in kind.shape.dim)
        numbers = kind.elem_type not in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type) if numbers else None
        found.append(Input(node.name, shape, dtype))
    return [declared for declared in found if declared.name not in weights]


def settle(entries: Sequence[Contender], settings: Settings) -> list[dict[str, list[int]]]:
    """The shapes of every contender's inputs, by name. Raises ConfigError where files cannot run the same sizes.

    Inputs of one name are the same input, and so are those at one place as far as their batch goes.
    """
    declared = [inputs_of(read_onnx(entry.path)) for entry in entries]
    if settings.inputs:
        check_arrays(entries, declared, settings.inputs)
        return [{} for _ in entries]
    fixed: dict[tuple[str | int, int], tuple[int, Path]] = {}
    for entry, inputs in zip(entries, declared, strict=True):
        check_batch(entry, inputs, settings)
        for slot, size, name in slots(inputs):
            if not isinstance(size, int) or name in settings.shapes:
                continue
            known, owner = fixed.setdefault(slot, (size, entry.path))
            if known != size:
                raise ConfigError(
                    f"{entry.path} fixes dimension {slot[1]} of its input {name!r} at {size}, but {owner} fixes it at "
                    f"{known}: export one of them with that size symbolic, or at the other's size"
                )
    return [
        shapes_of(entry, inputs, fixed, settings) for entry, inputs in zip(entries, declared, strict=True)
    ]


def slots(inputs: Sequence[Input]) -> Iterator[tuple[tuple[str | int, int], int | str, str]]:
    """(what it is compared by, size, name of the input) of every dimension."""
    for place, declared in enumerate(inputs):
        for axis, size in enumerate(declared.shape):
            if axis == 0:
                yield (place, 0), size, declared.name
            yield (declared.name, axis), size, declared.name


def check_batch(entry: Contender, inputs: Sequence[Input], settings: Settings) -> None:
    """A batch that a file cannot take is not the batch that is measured."""
    first = {item.name: item.shape[0] for item in inputs if item.shape and item.name not in settings.shapes}
    if settings.batch is None or not first or any(isinstance(size, str) for size in first.values()):
        return
    if settings.batch not in first.values():
        name, size = next(iter(first.items()))
        raise ConfigError(
            f"{entry.path} fixes the batch of its input {name!r} at {size}, but --batch is {settings.batch}: "
            f"give --batch {size}, or export the file with a symbolic batch"
        )


def shapes_of(
    entry: Contender,
    inputs: Sequence[Input],
    fixed: Mapping[tuple[str | int, int], tuple[int, Path]],
    settings: Settings,
) -> dict[str, list[int]]:
    """The sizes of one file: what was asked for, else what a file fixes, else the batch, else 1."""
    symbols: dict[str, int] = {}  # equal symbols are equal sizes
    for slot, size, name in slots(inputs):
        if slot not in fixed or not isinstance(size, str) or name in settings.shapes:
            continue
        wanted, owner = fixed[slot]
        asked = settings.dims.get(size, settings.batch if slot[1] == 0 else None)
        if asked not in (None, wanted):
            raise ConfigError(
                f"{owner} fixes dimension {slot[1]} of its input at {wanted}, and {asked} was asked for {name!r} of "
                f"{entry.path}: ask for {wanted}, or export {owner.name} with that size symbolic"
            )
        if size:
            symbols[size] = wanted
    symbols |= settings.dims

    def resolve(place: int, name: str, axis: int, size: int | str) -> int:
        if isinstance(size, int):
            return size
        for slot in ((name, axis), (place, axis)):
            if slot in fixed:
                return fixed[slot][0]
        return symbols.get(size, (settings.batch or 1) if axis == 0 else 1)

    return {
        item.name: list(settings.shapes[item.name])
        if item.name in settings.shapes
        else [resolve(place, item.name, axis, size) for axis, size in enumerate(item.shape)]
        for place, item in enumerate(inputs)
    }


def check_arrays(entries: Sequence[Contender], declared: Sequence[Sequence[Input]], path: Path) -> None:
    """Does the .npz have what every file takes? Raises ArtifactError that names the .npz."""
    is_archive(path)  # refuses what is not a readable file
    try:
        with np.load(path) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path}: not an .npz file of numbers ({error})") from error
    for entry, inputs in zip(entries, declared, strict=True):
        if missing := sorted({item.name for item in inputs} - set(arrays)):
            raise ArtifactError(
                f"{path} has no array named {', '.join(missing)}, which {entry.path} takes; "
                f"it has {', '.join(sorted(arrays)) or 'none'}"
            )
        for item in inputs:
            got = arrays[item.name]
            fits = len(got.shape) == len(item.shape) and all(
                isinstance(size, str) or size == given
                for size, given in zip(item.shape, got.shape, strict=True)
            )
            if not fits or item.dtype not in (None, got.dtype):
                raise ArtifactError(
                    f"{path}: its array {item.name!r} is {got.dtype} {by(got.shape)}, "
                    f"but {entry.path} takes {item.dtype} {by(item.shape)}"
                )


def by(shape: Sequence[int | str]) -> str:
    return "x".join(str(size) or "?" for size in shape) or "scalar"


def entry_of(contender: Contender, shapes: Mapping[str, list[int]], settings: Settings) -> Entry:
    request = {
        "files": [str(file) for file in files_of(contender.path, read_onnx(contender.path))],
        "library": contender.library,
        "threads": settings.threads,
    }
    case = {"shapes": shapes, "inputs": str(settings.inputs) if settings.inputs else None}
    return Entry(str(contender.path), ENGINE, request, [case])


def cold_start(entry: Entry, bar: Tracker) -> dict[str, Any]:
    with worker(entry) as fresh:
        bar.advance()
        return fresh.facts


def take_turns(workers: Sequence[Worker], first: int, bar: Tracker) -> list[list[float]]:
    latencies: list[list[float]] = [[] for _ in workers]
    for i, running in in_turn(workers, first):
        latencies[i] = running.run(TURN)
        bar.advance()
    return latencies


def summarise(
    entry: Contender,
    facts: Sequence[Mapping[str, Any]],
    latencies: npt.NDArray[np.float64],
    reference: npt.NDArray[np.float64],
) -> Result:
    files = files_of(entry.path, read_onnx(entry.path))
    p50, p90, p99 = (shown(float(value)) for value in np.percentile(latencies, (50, 90, 99)))
    return Result(
        file=str(entry.path),
        runtime=entry.runtime,
        file_bytes=sum(file.stat().st_size for file in files),
        load_ms=median(fact["load_ms"] for fact in facts),
        first_ms=median(fact["cases"][0]["first_ms"] for fact in facts),
        resident_bytes=int(median(fact["cases"][0]["resident_bytes"] for fact in facts)),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        ratio=p50 / shown(float(np.median(reference))),
        runs=len(latencies),
        inputs=facts[-1]["cases"][0]["inputs"],
    )


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
