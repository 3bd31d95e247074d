"""Contenders in processes of their own, taking turns.

A fresh process, so that memory and load time are the contender's own. Short turns, because the speed of a shared
machine drifts by more than the difference one looks for: latencies of one round saw the same machine. All but one
process are stopped, because the idle threads of a runtime spin for a while, on a core that the next one wants.
"""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hashcompile.core.errors import ArtifactError

WORKER = Path(__file__).with_name("bench_worker.py")
SETTLE = 0.005  # seconds: longer than an idle ONNX Runtime thread spins before it leaves the core to others
PATIENCE = 600.0  # seconds without an answer before a worker is taken for hung


@dataclass(frozen=True)
class Entry:
    """What a worker is to run. `engine` is a Python file; bench_worker.py says what it defines."""

    name: str  # for errors
    engine: Path
    request: Mapping[str, Any]  # the engine's own words for what to load
    cases: Sequence[Mapping[str, Any]] = ({},)  # and for the inputs of each thing to time
    patience: float = PATIENCE


@dataclass(frozen=True)
class Turn:
    """How long a contender runs before the next one does: `runs` at least, and `seconds` at least."""

    runs: int = 1
    seconds: float = 0.0
    warmup: int = 2  # runs that fill the caches again, and are not counted


@dataclass
class Worker:
    """A process with one loaded contender."""

    process: subprocess.Popen[str]
    entry: Entry
    facts: dict[str, Any] = field(default_factory=dict)  # what loading took: see bench_worker.py

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One line there, one line back. Raises ArtifactError, with what the process said last."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        hung = threading.Timer(self.entry.patience, self.process.kill)
        hung.start()
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            late = not hung.is_alive()
            hung.cancel()
        silence = f"no answer in {self.entry.patience:g} s" if late else "the process that ran it died"
        answer: dict[str, Any] = json.loads(line) if line else {"error": silence}
        if "error" in answer:
            raise ArtifactError(f"{self.entry.name}: {answer['error']}")
        return answer

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Running inside, stopped outside."""
        if hasattr(signal, "SIGSTOP"):
            self.process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            if hasattr(signal, "SIGSTOP"):
                self.process.send_signal(signal.SIGSTOP)

    def run(self, turn: Turn, case: int = 0) -> list[float]:
        """Latencies of one turn, in milliseconds."""
        with self.awake():
            request = {"case": case, "runs": turn.runs, "seconds": turn.seconds, "warmup": turn.warmup}
            answer = self.ask(request)
        return [nanoseconds / 1e6 for nanoseconds in answer["latencies"]]


@contextmanager
def worker(entry: Entry) -> Iterator[Worker]:
    """A fresh interpreter with the contender loaded, and every case run once."""
    # -P: the worker's own folder must not shadow the standard library
    command = [sys.executable, "-P", str(WORKER)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        try:
            running = Worker(process, entry)
            with running.awake():
                running.facts = running.ask(
                    {"engine": str(entry.engine), "request": entry.request, "cases": entry.cases}
                )
            yield running
        finally:
            process.kill()


def in_turn(workers: Sequence[Worker], first: int) -> Iterator[tuple[int, Worker]]:
    """The order of one round; another begins each time, for the first after a pause finds a cooler machine."""
    for step in range(len(workers)):
        i = (first + step) % len(workers)
        time.sleep(SETTLE)
        yield i, workers[i]
