"""Contenders measured: each loaded in fresh processes of its own, then timed in turns (race.py says why).

It runs on a device, too, where there is neither PyTorch nor ONNX: the standard library is all it needs.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from hashcompile.race import Entry, Turn, in_turn, worker

LOADS = 3  # fresh processes a contender, for a load time that is not one accident
TURN = Turn(runs=10)  # before the next one has its turn


@dataclass(frozen=True)
class Measured:
    loads: list[dict[str, Any]]  # what bench_worker.py tells of every fresh process
    latencies: list[list[float]]  # milliseconds, [turn][run]


def rounds(runs: int) -> int:
    """Turns of each contender that make at least so many runs."""
    return -(-runs // TURN.runs)


def steps(contenders: int, runs: int) -> int:
    """How often `measure` calls `advance`."""
    return contenders * (LOADS + rounds(runs))


def measure(entries: Sequence[Entry], runs: int, advance: Callable[[], None]) -> list[Measured]:
    """One entry each. Raises ArtifactError with the name of the entry that could not be run."""
    with ExitStack() as stack:
        loads = [[cold_start(entry, advance) for _ in range(LOADS - 1)] for entry in entries]
        workers = []
        for entry, facts in zip(entries, loads, strict=True):
            workers.append(stack.enter_context(worker(entry)))
            facts.append(workers[-1].facts)
            advance()
        latencies: list[list[list[float]]] = [[] for _ in entries]
        for first in range(rounds(runs)):
            for i, running in in_turn(workers, first):
                latencies[i].append(running.run(TURN))
                advance()
    return [Measured(*each) for each in zip(loads, latencies, strict=True)]


def cold_start(entry: Entry, advance: Callable[[], None]) -> dict[str, Any]:
    with worker(entry) as fresh:
        advance()
        return fresh.facts
