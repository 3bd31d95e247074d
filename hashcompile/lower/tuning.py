"""What the user says of tuning: which loops run fastest is found out by trying."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from hashcompile.core.errors import ConfigError

CRASHES = (0, 1, 15)  # of apache-tvm-ffi: TVM 0.27 dies with it when it writes a function down


@dataclass(frozen=True)
class Tuning:
    """How long to search for better loops, and where to keep what was found.

    folder: of all trials so far. Another export with the same folder takes only those that are missing.
    trials: candidates that are compiled and timed, of all loops of the model together.
    batch: samples that are timed at once, of the example inputs; None: as many as there are. The library takes any.

    Raises ConfigError, also where what is installed cannot tune.
    """

    folder: str | os.PathLike[str]
    trials: int = 1000
    batch: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.folder, str | os.PathLike) or not os.fspath(self.folder):
            raise ConfigError(f"folder={self.folder!r}: wanted the path of a folder that keeps the trials")
        if Path(self.folder).exists() and not Path(self.folder).is_dir():
            raise ConfigError(f"folder={str(self.folder)!r} is a file: wanted a folder that keeps the trials")
        for name, value, least in (("trials", self.trials, 0), ("batch", self.batch, 1)):
            if name == "batch" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name}={value!r}: wanted a whole number, {least} or more")
        check_installed()


def check_installed() -> None:
    """Raise ConfigError for a TVM that would take Python down with it; that there is one is told by the export."""
    try:
        version = metadata.version("apache-tvm-ffi")
    except metadata.PackageNotFoundError:
        return
    if tuple(map(int, re.findall(r"\d+", version)[:3])) >= CRASHES:
        raise ConfigError(
            f"TVM cannot tune with apache-tvm-ffi {version}, which crashes: pip install 'hashcompile[tune]'"
        )
