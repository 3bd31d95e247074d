"""Which artifact of a model to ship: all that can be made are measured in turns.

Of the criteria, the first in which the files differ by more than chance decides; the others are told, for or against
the winner. Where nothing differs it is ONNX, since more machines have something that runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

from rich.console import Group, RenderableType
from rich.text import Text

from hashcompile.bench import Result, Settings, as_table, bench, contenders, stored
from hashcompile.bench_inputs import Arrays, Sizes
from hashcompile.core.console import format_bytes, render
from hashcompile.core.errors import ConfigError, ExportError, HashcompileError, VerificationError
from hashcompile.ssh import Host

Format = Literal["onnx", "tvm"]
Criterion = Literal["latency", "memory", "size", "load"]

FILES: dict[Format, str] = {"onnx": "model.onnx", "tvm": "model.so"}
SAME = 0.05  # relative difference that two runs of one file have on a machine that others use as well


@dataclass(frozen=True)
class Recommendation:
    """`print` shows it; `results` are the rows of `hashcompile bench`, and `reasons` are sentences."""

    winner: Format
    reasons: tuple[str, ...]
    results: tuple[Result, ...]

    def __rich__(self) -> RenderableType:
        lines = [f"\nship {FILES[self.winner]}:", *(f"  - {reason}" for reason in self.reasons)]
        return Group(as_table(self.results), Text("\n".join(lines)))

    def __str__(self) -> str:
        return render(self)


@dataclass(frozen=True)
class Ways:
    """How each file is made; `lacking` says why one cannot even be tried."""

    exports: Mapping[Format, Callable[[Path], object]]
    lacking: Mapping[Format, str] = field(default_factory=dict)


def recommend(
    ways: Ways,
    inputs: Arrays,
    settings: Settings,
    prefer: Criterion = "latency",
    on: Host | None = None,
    show_progress: bool = True,
) -> Recommendation:
    """Measure every file that can be made, on `inputs` by name.

    Raises ConfigError; ArtifactError where a file cannot be run; and where none can be made, the error of the first.
    """
    if prefer not in get_args(Criterion):
        raise ConfigError(f"prefer={prefer!r}: wanted {', '.join(get_args(Criterion))}")
    refused: dict[Format, HashcompileError] = {}
    with TemporaryDirectory() as folder:
        made: dict[Format, Path] = {}
        for name, export in ways.exports.items():
            try:
                export(Path(folder) / FILES[name])
                made[name] = Path(folder) / FILES[name]
            except (ExportError, VerificationError) as error:
                refused[name] = error
        if not made:
            raise next(iter(refused.values()))
        sizes = Sizes(inputs=stored(inputs, Path(folder) / "inputs.npz"))
        entries = contenders([*made.values()])
        rows = bench(entries, replace(settings, sizes=sizes), show_progress, on)
    results = {name: replace(row, file=FILES[name]) for name, row in zip(made, rows, strict=True)}
    on_gpu = any(entry.model.cuda for entry in entries)
    winner, reasons = decide(results, prefer, HOST_TELLS if on_gpu else ALL)
    if on_gpu and len(made) > 1:
        reasons.append("memory was not compared: what a library takes of a GPU's is not measured")
    told = {**ways.lacking, **{name: str(error) for name, error in refused.items()}}
    reasons += [f"{FILES[name]} was not measured: {why}" for name, why in told.items()]
    return Recommendation(winner, tuple(reasons), tuple(results.values()))


@dataclass(frozen=True)
class Figure:
    """One criterion: of two rows, the one with less is better."""

    name: str
    of: Callable[[Result], float]
    text: Callable[[float], str]


FIGURES: dict[Criterion, Figure] = {
    "latency": Figure("latency, p50", lambda row: row.p50_ms, lambda value: f"{value:.4f} ms"),
    "memory": Figure(
        "resident memory", lambda row: row.resident_bytes, lambda value: format_bytes(int(value))
    ),
    "size": Figure("size on disk", lambda row: row.file_bytes, lambda value: format_bytes(int(value))),
    "load": Figure("cold load", lambda row: row.load_ms, lambda value: f"{value:.1f} ms"),
}


ALL = tuple(FIGURES)
HOST_TELLS: tuple[Criterion, ...] = ("latency", "size", "load")  # of a library on a GPU


def decide(
    results: Mapping[Format, Result], prefer: Criterion, criteria: Sequence[Criterion] = ALL
) -> tuple[Format, list[str]]:
    """The better of them, and why; `prefer` comes first, then the criteria in their order."""
    first, *others = results
    if not others:
        return first, ["it is the only one that was measured"]
    (second,) = others
    order = sorted(criteria, key=lambda criterion: criterion != prefer)
    deciding = [criterion for criterion in order if differ(results, criterion)]
    if not deciding:
        return "onnx", [f"nothing differs by more than {SAME:.0%}, and any ONNX Runtime runs it"]
    winner = min((first, second), key=lambda name: FIGURES[deciding[0]].of(results[name]))
    other = second if winner == first else first
    return winner, [
        compared(criterion, results[winner], results[other], decides=criterion == deciding[0])
        for criterion in order
    ]


def differ(results: Mapping[Format, Result], criterion: Criterion) -> bool:
    return apart(*map(FIGURES[criterion].of, results.values()))


def apart(a: float, b: float) -> bool:
    return max(a, b) > min(a, b) * (1 + SAME)


def compared(criterion: Criterion, winner: Result, other: Result, decides: bool) -> str:
    figure = FIGURES[criterion]
    own, theirs = figure.of(winner), figure.of(other)
    both = f"{figure.text(own)}, {other.file} {figure.text(theirs)}"
    if not apart(own, theirs):
        return f"{figure.name}: no difference ({both})"
    less, more = sorted((own, theirs))
    verdict = "decides" if decides else "speaks for it, too" if own < theirs else "speaks against it"
    ratio = f"{more / less:.2f}x {'less' if own < theirs else 'more'}" if less > 0 else "all there is"
    return f"{figure.name} {verdict}: {both}, {ratio}"
