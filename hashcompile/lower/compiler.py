"""Compilers: this machine's own for C++, one that makes programs for 64-bit ARM Linux, and NVIDIA's for its GPUs."""

from __future__ import annotations

import os
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
HOMES = ("CUDA_HOME", "CUDA_PATH")  # that people set, of the CUDA toolkit
USUAL_HOME = "/usr/local/cuda"
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


def nvcc_path() -> str:
    """That of CUDACXX, the one on the path, or of a toolkit where it usually lies. Raises ExportError."""
    if named := os.environ.get("CUDACXX"):
        if path := which(named):
            return path
        raise ExportError(f"a library for CUDA needs its compiler: CUDACXX={named} is no program")
    homes = [*filter(None, map(os.environ.get, HOMES)), USUAL_HOME]
    if path := which("nvcc") or which("nvcc", path=os.pathsep.join(f"{home}/bin" for home in homes)):
        return path
    raise ExportError(
        f"a library for CUDA needs its compiler: there is no nvcc on the path, nor in {' or '.join(homes)}; "
        "NVIDIA's CUDA toolkit has it (from 11.8 on), and the library can be made where there is no GPU"
    )


def look_for(target: str) -> None:
    """Raise ExportError where what compiles a library for this target of `export_tvm` is missing."""
    if target == "cuda":
        nvcc_path()
    if target == "arm64":
        arm64()
    if which(NATIVE[0]) is None:
        raise missing(NATIVE[0])


def missing(program: str) -> ExportError:
    return ExportError(f"a TVM library is compiled with {program}, which this machine does not have")


def call(command: Sequence[str], folder: Path | None = None) -> str:
    """Run a compiler or what drives one, in `folder`; what it printed. Raises ExportError with its last words."""
    try:
        done = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
    except OSError as error:
        raise missing(command[0]) from error
    if done.returncode:
        last = "\n".join(done.stdout.strip().splitlines()[-20:])
        raise ExportError(f"{' '.join(command)} failed:\n{last}")
    return done.stdout
