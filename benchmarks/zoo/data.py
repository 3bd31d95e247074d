"""Where real data lies: the folder named by HASHCOMPILE_DATA, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path


class MissingDataError(Exception):
    """A benchmark needs files that this machine does not have; says which, and how to name the folder."""


def find(*parts: str) -> Path | None:
    """The file or folder at `parts` below HASHCOMPILE_DATA, or None."""
    root = os.environ.get("HASHCOMPILE_DATA")
    path = Path(root, *parts) if root else None
    return path if path and path.exists() else None


def require(*parts: str) -> Path:
    """Like `find`, for callers that cannot do without. Raises MissingDataError."""
    path = find(*parts)
    if path is None:
        raise MissingDataError(f"needs {'/'.join(parts)} below the folder that HASHCOMPILE_DATA names")
    return path
