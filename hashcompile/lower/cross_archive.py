"""Our kernels for a device of another kind: compiled from the runtime's sources once, and kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

import hashcompile_runtime as hcrt
from hashcompile.core.console import progress
from hashcompile.core.errors import ExportError
from hashcompile.lower.compiler import ZIG, Command, call

ARCHIVE = "hashcompile_tvm"  # in runtime/CMakeLists.txt
# What CMake and nvcc take from the environment, too.
READ = (
    "CUDAFLAGS",
    "CUDAHOSTCXX",
    "CXX",
    "CXXFLAGS",
    "NVCC_APPEND_FLAGS",
    "NVCC_CCBIN",
    "NVCC_PREPEND_FLAGS",
)
HOSTS = ("nodes", "ort", "tvm")  # folders of the sources that know kernels, and that kernels do not know


@dataclass(frozen=True)
class Recipe:
    """How an archive is made."""

    target: str  # a static library, as CMake names it
    machine: str  # for messages
    compilers: Sequence[Command]
    settings: Mapping[str, str]  # for CMake
    hosts: bool = True  # sources of hosts go into it


def for_machine(compiler: Command, machine: str) -> Recipe:
    """All our kernels, by `compiler`, which makes them for `machine`, as CMake names it."""
    settings = {
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": machine,
        "CMAKE_CXX_COMPILER": ";".join(compiler),
    }
    if compiler[: len(ZIG)] == ZIG:  # brings its own; this machine's may not know the other's object files
        settings["CMAKE_CXX_ARCHIVE_CREATE"] = " ".join((*ZIG, "ar", "qcs", "<TARGET>", "<OBJECTS>"))
        settings["CMAKE_CXX_ARCHIVE_FINISH"] = ""
    return Recipe(ARCHIVE, machine, (compiler,), settings)


def archive(recipe: Recipe, show: bool) -> Path:
    """A minute or two when first asked for; then it is there until sources, compilers, their versions or flags change.

    Raises ExportError.
    """
    source = hcrt.source_path()
    place = cache() / f"{recipe.target}-{recipe.machine}-{fingerprint(source, recipe)}.a"
    if place.is_file():
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with (
            progress(f"compiling our kernels for {recipe.machine}, once", None, show),
            TemporaryDirectory(dir=place.parent) as build,
        ):
            call(configuration(source, Path(build), recipe))
            call([cmake(), "--build", build, "--target", recipe.target, "--parallel", str(os.cpu_count())])
            made = list(Path(build).rglob(f"lib{recipe.target}.a"))
            if len(made) != 1:
                raise ExportError(
                    f"CMake made {len(made)} archives lib{recipe.target}.a in {build}; wanted one"
                )
            os.replace(made[0], place)
    except OSError as error:
        raise ExportError(
            f"cannot keep compiled kernels in {place.parent}: {error.strerror or error}"
        ) from error
    return place


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hashcompile"


def fingerprint(source: Path, recipe: Recipe) -> str:
    """Of everything that decides what the archive holds."""
    versions = [call([*compiler, "--version"]) for compiler in recipe.compilers]
    named = {**recipe.settings, **{name: os.environ[name] for name in READ if name in os.environ}}
    settings = [f"{name}={value}" for name, value in sorted(named.items())]
    commands = [word for compiler in recipe.compilers for word in compiler]
    found = hashlib.sha256("\0".join((*commands, *versions, *settings)).encode())
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        name = path.relative_to(source)
        if recipe.hosts or name.parts[0] not in HOSTS:
            content = path.read_bytes()
            found.update(f"\0{name}\0{len(content)}\0".encode())
            found.update(content)
    return found.hexdigest()[:16]


def configuration(source: Path, build: Path, recipe: Recipe) -> list[str]:
    settings = {"CMAKE_BUILD_TYPE": "Release", **recipe.settings}
    command = [cmake(), "-S", str(source), "-B", str(build)]
    if ninja := installed("ninja"):
        settings["CMAKE_MAKE_PROGRAM"] = ninja
        command += ["-G", "Ninja"]
    return command + [f"-D{name}={value}" for name, value in settings.items()]


def cmake() -> str:
    if path := installed("cmake"):
        return path
    raise ExportError(
        "our kernels for a device are compiled with CMake, which is not installed: pip install cmake ninja"
    )


def installed(name: str) -> str | None:
    """A program on the path, or one that pip put beside this Python."""
    return which(name) or which(name, path=sysconfig.get_path("scripts"))
