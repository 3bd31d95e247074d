"""Trials of tuning, in a folder that outlives the export: JSON lines of TVM's own, and what was searched to the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvm.ir import IRModule
from tvm.s_tir import meta_schedule
from tvm_ffi import structural_hash

from hashcompile.core.errors import ArtifactError
from hashcompile.core.files import staged

FAILED = 1e10  # seconds, as TVM has it
RAN = 1e9
FUNCTIONS, TRIALS, FINISHED = "functions.json", "trials.json", "finished.json"


class Records:
    """The database in `folder`, which is made. Raises ArtifactError where it cannot be, or is damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths = [folder / name for name in (FUNCTIONS, TRIALS)]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in paths:
                whole_lines(path)
            self.finished: dict[str, int] = read(folder / FINISHED)
        except OSError as error:
            raise ArtifactError(f"cannot keep trials in {folder}: {error.strerror or error}") from error
        try:
            self.database = meta_schedule.database.JSONDatabase(*map(str, paths))
        except Exception as error:
            raise ArtifactError(f"{folder}: its trials cannot be read, remove it: {error}") from error

    def missing(self, functions: Sequence[IRModule], trials: int) -> int:
        """How many of so many trials, of all `functions` together, are still to be made."""
        done = self.finished.get(key(functions), 0)
        if not functions or done >= trials:
            return 0
        return max(0, trials - max(done, len(self.of(functions))))

    def finish(self, functions: Sequence[IRModule], trials: int) -> None:
        """Remember that the search has ended: there may be fewer candidates than trials."""
        self.finished[key(functions)] = trials
        with staged(self.folder / FINISHED) as stage:
            (stage / FINISHED).write_text(json.dumps(self.finished, indent=1))

    def best(self, function: IRModule) -> Any | None:
        """The record of the fastest trial, also one without steps, which TVM leaves out; None where none ran."""
        ran = [record for record in self.of([function]) if seconds(record) < RAN]
        return min(ran, key=seconds, default=None)

    def of(self, functions: Sequence[IRModule]) -> list[Any]:
        """All records of `functions`."""
        known = [
            self.database.commit_workload(each) for each in functions if self.database.has_workload(each)
        ]
        made = self.database.get_all_tuning_records() if known else []
        return [record for record in made if any(record.workload.same_as(each) for each in known)]


def seconds(record: Any) -> float:
    times = [float(each) for each in record.run_secs or ()]
    return sum(times) / len(times) if times else FAILED


def key(functions: Sequence[IRModule]) -> str:
    return " ".join(sorted(f"{structural_hash(each) & (1 << 64) - 1:016x}" for each in functions))


def whole_lines(path: Path) -> None:
    """Cut off what an interrupted run wrote of its last line."""
    if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
        path.write_bytes(content[: content.rfind(b"\n") + 1])


def read(path: Path) -> dict[str, int]:
    if not path.exists():
        return {}
    try:
        return {str(name): int(trials) for name, trials in json.loads(path.read_text()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is damaged, remove it: {error}") from error
