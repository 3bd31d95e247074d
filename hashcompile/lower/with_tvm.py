"""TVM is an extra, and imported only where it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from hashcompile.core.errors import ConfigError

ADVICE = "pip install 'hashcompile[tvm]'"


def installed() -> bool:
    return find_spec("tvm") is not None


def finds_gpu() -> bool:
    """Does TVM, which is installed, find a GPU of kind cuda?"""
    import tvm

    return bool(tvm.cuda().exist)


@contextmanager
def needed_by(what: str) -> Iterator[None]:
    """Around imports of what imports TVM. Raises ConfigError where there is none."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(f"{what} needs TVM: {ADVICE}") from error
