"""TVM libraries for CUDA on the emulated GPU: compiled from the same sources, with this machine's compiler in nvcc's place.

`python -m tests.cuda.emulated_tvm FOLDER CASE...` gives the process a device of kind cuda, and exports and runs the cases of
`tests.cuda.tvm_cases` on it. A process of its own: TVM keeps its devices as long as it lives.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from subprocess import run
from tempfile import mkdtemp
from typing import Any

import tvm
import tvm_ffi
from tvm.target import Target

from hashcompile.lower import tvm_cuda, tvm_library
from hashcompile.lower.compiler import NATIVE
from hashcompile.lower.tvm_nodes import TvmNode
from hashcompile.lower.tvm_platform import ON_LOAD
from tests.cuda.conftest import HERE, INCLUDES, RUNTIME

TOOLKIT = HERE / "toolkit"
COMPILE = ("c++", "-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-w", "-DHC_CUDA_F32_ONLY", f"-I{TOOLKIT}", *INCLUDES)
SOURCES = (
    "cuda/api.cc",
    "ops/window.cc",
    *(f"nodes/{name}.cc" for name in ("conv_form", "hashed_form", "host", "rows", "weight_form", "window")),
    *(f"tvm/{name}.cc" for name in ("arguments", "model")),
    *(f"tvm/cuda/{name}.cc" for name in ("call", "host", "kernels", "memory")),
)


@cache
def folder() -> Path:
    return Path("/tmp/emu") # XX


@cache
def compiled(source: Path, name: str, *flags: str) -> Path:
    made = folder() / f"{name}.o"
    if made.exists() and made.stat().st_mtime > max(p.stat().st_mtime for p in [*RUNTIME.rglob("*.h"), *TOOLKIT.rglob("*.h"), source]): return made #XX
    run([*COMPILE, *flags, "-x", "c++", "-c", str(source), "-o", str(made)], check=True)
    return made


def host() -> list[Path]:
    """Objects of what calls our kernels."""
    return [compiled(RUNTIME / source, source.replace("/", "_")) for source in SOURCES]


def kernels(kind: str) -> Path:
    """Object of our kernels of one kind, as tvm_cuda names them."""
    cuda = RUNTIME / "cuda"
    if kind == "hashes":
        return compiled(cuda / "hashed.cu", kind)
    return compiled(cuda / "codebook.cu", kind, f"-DHC_BITS={kind.removesuffix('_bits')}")


@dataclass(frozen=True)
class Emulated(tvm_cuda.Cuda):
    def kernels(self, nodes: Sequence[TvmNode]) -> tuple[Sequence[str], Sequence[Path]]:
        kinds = sorted(set(map(tvm_cuda.kind_of, nodes)))
        return [*ON_LOAD, *(f"hc_cuda_{kind}" for kind in kinds)], [*host(), *map(kernels, kinds)]

    def object_of(self, source: Path) -> str:
        # where a C++ compiler wants the words of a declaration
        text = source.read_text().replace("__shared__ alignas(64)", "alignas(64) static")
        made = source.with_suffix(".cc")
        made.write_text(text)
        include = f"-I{tvm_ffi.libinfo.find_include_path()}"
        Path("/tmp/last.cc").write_text(text) #XX
        run([*COMPILE, include, "-c", str(made), "-o", str(source.with_suffix(".o"))], check=True)
        return str(source.with_suffix(".o"))

    def linker(self) -> Sequence[str]:
        return (*NATIVE, "-shared")


def platform(target: Any, show: bool = False) -> Emulated:
    target = Target({"kind": "cuda", "arch": "sm_80", "host": {"kind": "cuda_host"}})
    return Emulated(target, NATIVE, Path(), False, "", show)


def add_device() -> None:
    """Give TVM a device of kind cuda, in this process."""
    made = folder() / "device.so"
    lib, ffi = Path(tvm.__file__).parent, Path(tvm_ffi.__file__).parent
    command = [*COMPILE, "-shared", f"-I{lib}/include", f"-I{ffi}/include", str(HERE / "emulated_device.cc")]
    libraries = [f"-L{lib}/lib", "-ltvm_runtime", f"-L{ffi}/lib", "-ltvm_ffi"]
    run([*command, "-o", str(made), *libraries], check=True)
    ctypes.CDLL(str(made))


def main() -> None:
    from tests.cuda import tvm_cases

    tvm_library.tvm_cuda.platform = platform
    add_device()
    assert tvm.cuda().exist
    target, *names = sys.argv[1:]
    for name in names:
        tvm_cases.check(name, Path(target))
        print("checked", name, flush=True)


if __name__ == "__main__":
    main()
