"""The measuring: every peer on every case of a subject, in turns, and what each of them showed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from hashcompile.core.console import Tracker, progress
from hashcompile.race import Entry, Turn, Worker, in_turn, worker

from .peer import CALL, OURS, NotApplicableError, Peer
from .prepared import BENCHMARKS, BUILD, Prepared, prepared
from .subject import Subject

HOPELESS = 5.0  # times the fastest peer's latency


@dataclass(frozen=True)
class Settings:
    threads: tuple[int, ...] = (1, 2)
    rounds: int = 5
    seconds: float = 0.3  # of a turn
    patience: float = 300.0  # seconds that a contender may take to load, or to answer
    build: Path = BUILD


@dataclass(frozen=True)
class Standing:
    """One peer on one case. Without rounds there is a reason for it."""

    subject: str
    case: str
    threads: int
    peer: str
    rounds_ms: tuple[float, ...] = ()  # the median latency of each round
    file_bytes: int | None = None
    resident_bytes: int | None = None  # what loading and one run of the first case added to a fresh process
    reason: str = ""

    @property
    def median_ms(self) -> float:
        return median(self.rounds_ms)


@dataclass(eq=False)
class _Contender:
    """A peer on its way: it may fall out at any step, and then `reason` says why."""

    peer: Peer
    ready: Prepared | None = None
    running: Worker | None = None
    reason: str = ""
    rounds: dict[str, list[float]] = field(default_factory=dict)

    def hopeless(self, case: str, others: Sequence[_Contender]) -> bool:
        """So slow that one round tells enough; the time is better spent on those that could win."""
        rivals = [each for each in others if each.peer.name not in (OURS, CALL) and case in each.rounds]
        return self in rivals and self.rounds[case][0] > HOPELESS * min(
            each.rounds[case][0] for each in rivals
        )

    def fall_out(self, error: Exception) -> None:
        self.reason, self.running = one_line(error), None


def contest(subject: Subject, peers: Sequence[Peer], settings: Settings) -> list[Standing]:
    """Measure all peers on all cases, at each number of threads."""
    turns = settings.rounds * len(subject.cases)
    steps = len(peers) * (1 + len(settings.threads) * (1 + turns))
    with tempfile.TemporaryDirectory() as folder, progress(subject.name, steps) as bar:
        inputs = [_write(Path(folder), subject, case) for case in subject.cases]
        ready = {peer.name: _prepare(peer, subject, settings, bar) for peer in peers}
        standings: list[Standing] = []
        for threads in settings.threads:
            contenders = [_Contender(peer, *ready[peer.name]) for peer in peers]
            with ExitStack() as stack:
                for contender in contenders:
                    _start(contender, subject, inputs, threads, settings, stack)
                    bar.advance()
                _race(contenders, list(subject.cases), settings, bar)
                standings += [line for each in contenders for line in _lines(each, subject, threads)]
    return standings


def _write(folder: Path, subject: Subject, case: str) -> str:
    path = folder / f"{case.replace(' ', '-')}.npz"
    np.savez(path, **{name: value.numpy() for name, value in subject.cases[case].items()})
    return str(path)


def _prepare(
    peer: Peer, subject: Subject, settings: Settings, bar: Tracker
) -> tuple[Prepared | None, None, str]:
    try:
        return prepared(peer, subject, settings.build), None, ""
    except NotApplicableError as error:
        return None, None, str(error)
    except Exception as error:  # whatever a peer does, the others are still worth measuring
        return None, None, one_line(error)
    finally:
        bar.advance()


def _start(
    contender: _Contender,
    subject: Subject,
    inputs: Sequence[str],
    threads: int,
    settings: Settings,
    stack: ExitStack,
) -> None:
    if contender.ready is None:
        return
    request = {
        "files": [str(file) for file in contender.ready.files],
        "threads": threads,
        "recipe": asdict(subject.recipe),
        "names": list(subject.example),
        "path": str(BENCHMARKS),
        "cache": str(settings.build / "inductor"),
        **contender.peer.options,
    }
    entry = Entry(
        contender.peer.name,
        contender.peer.engine,
        request,
        [{"inputs": path} for path in inputs],
        settings.patience,
    )
    try:
        contender.running = stack.enter_context(worker(entry))
    except Exception as error:
        contender.fall_out(error)


def _race(contenders: Sequence[_Contender], cases: Sequence[str], settings: Settings, bar: Tracker) -> None:
    turn = Turn(seconds=settings.seconds, warmup=1)
    for case, label in enumerate(cases):
        for first in range(settings.rounds):
            racing = [each for each in contenders if each.running and not each.hopeless(label, contenders)]
            for i, running in in_turn([each.running for each in racing if each.running], first):
                try:
                    racing[i].rounds.setdefault(label, []).append(median(running.run(turn, case)))
                except Exception as error:
                    racing[i].fall_out(error)
            bar.advance(len(contenders))


def _lines(contender: _Contender, subject: Subject, threads: int) -> Iterator[Standing]:
    facts = contender.running.facts if contender.running else None
    for case in subject.cases:
        rounds = () if contender.reason else tuple(contender.rounds.get(case, ()))
        yield Standing(
            subject.name,
            case,
            threads,
            contender.peer.name,
            rounds,
            contender.ready.file_bytes if contender.ready else None,
            facts["cases"][0]["resident_bytes"] if facts else None,
            contender.reason,
        )


def one_line(error: Exception) -> str:
    """The first sentence of what went wrong, for a cell of a table."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{error.name} is not installed"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:200]
