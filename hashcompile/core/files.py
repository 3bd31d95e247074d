"""Files that are whole or not there: written aside, fsynced, renamed into place; and what a library must be named."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hashcompile.core.errors import ArtifactError, ConfigError

LIBRARY = ".so"  # what ends the name of a TVM library: TVM chooses by it how to write one, and how to load it


def check_library_name(path: str | os.PathLike[str]) -> None:
    """Raise ConfigError for a name that no TVM library can have."""
    if Path(path).suffix != LIBRARY:
        raise ConfigError(
            f"{path}: the name of a TVM library ends in {LIBRARY}, by which TVM knows how to load it"
        )


@contextmanager
def staged(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder beside `path` to write into. On success its files are moved next to `path`, the one of that name last;
    on any failure the folder goes and what stood at `path` stays. Raises ArtifactError where nothing can be written.
    """
    target = Path(path)
    parent = target.parent
    if target.is_dir():
        raise ArtifactError(f"{target} is a directory: give a file name in it")
    if not parent.is_dir():
        raise ArtifactError(f"cannot write {target}: there is no directory {parent}")
    try:
        stage = Path(tempfile.mkdtemp(dir=parent, prefix=f".{target.name}."))
    except OSError as error:
        raise ArtifactError(f"cannot write {target}: {error.strerror or error}") from error
    try:
        yield stage
        written = sorted(stage.iterdir(), key=lambda file: file.name == target.name)
        for file in written:
            _fsync(file)
        for file in written:
            os.replace(file, parent / file.name)
        _fsync(parent)
    except OSError as error:
        raise ArtifactError(
            f"cannot write {target}: {error.strerror or error}; what stood there is untouched"
        ) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
