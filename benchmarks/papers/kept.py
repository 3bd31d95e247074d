"""Results of a long experiment in a file, one by one: a run goes on where the last one was stopped."""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Kept:
    """What was measured in the same setting is not measured again. Those of other settings stay in the file."""

    def __init__(self, path: Path, setting: Mapping[str, Any]) -> None:
        self.path = path
        self.runs: list[Record] = json.loads(path.read_text()) if path.exists() else []
        known = [run for run in self.runs if run["setting"] == dict(setting)]
        self.run = known[0] if known else {"setting": dict(setting), "results": []}

    @property
    def results(self) -> list[Record]:
        return self.run["results"]

    def once(self, key: Mapping[str, Any], measure: Callable[[], Record]) -> Record:
        """The record that has the entries of `key`, measured now if there is none."""
        for each in self.results:
            if all(each.get(name) == value for name, value in key.items()):
                return each
        found = {**key, **measure()}
        self.results.append(found)
        self.write()
        training = self.training(key)
        for each in training.parent.glob(f"{glob.escape(training.stem)}*"):
            each.unlink()
        return found

    def training(self, key: Mapping[str, Any]) -> Path:
        """Where the training of that trial is kept until it is measured, as are files whose names begin like it. No
        other trial has this file, and no other setting."""
        known = label({**self.run["setting"], **key})
        name = "_".join(map(str, (self.path.stem, *key.values(), known)))
        return self.path.parent / "papers" / f"{name}.safetensors"

    def write(self) -> None:
        """As a whole, or not at all."""
        if self.run not in self.runs:
            self.runs.append(self.run)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = self.path.with_suffix(".new")
        whole.write_text(json.dumps(self.runs, indent=1))
        whole.replace(self.path)


def label(setting: Mapping[str, Any]) -> str:
    """A name for files that belong to one setting."""
    return hashlib.sha256(json.dumps(dict(setting), sort_keys=True).encode()).hexdigest()[:8]
