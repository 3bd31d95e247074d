"""C++ compilers: this machine's own, and one that makes programs for 64-bit ARM Linux."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from hashcompile.core.errors import ExportError

Command = tuple[str, ...]

NATIVE: Command = ("c++",)
ARM64_GCC = "aarch64-linux-gnu-g++"
ZIG: Command = (sys.executable, "-m", "ziglang")
ARM64_ZIG: Command = (
    *ZIG,
    "c++",
    "-target",
    "aarch64-linux-gnu.2.28",
)  # the C library that TVM's wheels ask for
TO_INSTALL = "pip install 'hashcompile[arm64]', or with apt: g++-aarch64-linux-gnu cmake make"


def arm64() -> Command:
    """Debian's cross compiler, or Zig's from PyPI. Raises ExportError where there is neither."""
    if path := which(ARM64_GCC):
        return (path,)
    if find_spec("ziglang"):
        return ARM64_ZIG
    raise ExportError(
        f"a library for ARM64 needs a cross compiler, {ARM64_GCC} or the package ziglang: {TO_INSTALL}"
    )


def call(command: Sequence[str], folder: Path | None = None) -> str:
    """Run a compiler or what drives one, in `folder`; what it printed. Raises ExportError with its last words."""
    try:
        done = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
    except FileNotFoundError as error:
        raise ExportError(f"a TVM library needs a C++ compiler: there is no {command[0]}") from error
    if done.returncode:
        last = "\n".join(done.stdout.strip().splitlines()[-20:])
        raise ExportError(f"{' '.join(command)} failed:\n{last}")
    return done.stdout
