"""Results of a long experiment in a file, one by one: a run goes on where the last one was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Kept:
    """What was measured in the same setting is not measured again."""

    def __init__(self, path: Path, setting: Mapping[str, float]) -> None:
        self.path, self.setting = path, dict(setting)
        before = json.loads(path.read_text()) if path.exists() else {}
        self.results: list[Record] = before["results"] if before.get("setting") == self.setting else []

    def once(self, key: Mapping[str, Any], measure: Callable[[], Record]) -> Record:
        """The record that has the entries of `key`, measured now if there is none."""
        for each in self.results:
            if all(each.get(name) == value for name, value in key.items()):
                return each
        found = {**key, **measure()}
        self.write([*self.results, found])
        return found

    def write(self, results: list[Record]) -> None:
        self.results = results
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps({"setting": self.setting, "results": results}, indent=1))
