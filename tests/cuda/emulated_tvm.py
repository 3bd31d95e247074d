"""TVM libraries for CUDA on the emulated GPU: of the same sources, with this machine's compiler in nvcc's place.

`python -m tests.cuda.emulated_tvm OBJECTS FOLDER CASE...` gives its process a device of kind cuda, and exports and runs
cases of `tests.cuda.tvm_cases` on it. A process of its own, for TVM keeps a device as long as it lives.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm.target import Target

from hashcompile.lower import tvm_cuda
from hashcompile.lower.compiler import NATIVE
from hashcompile.lower.tvm_nodes import TvmNode
from hashcompile.lower.tvm_platform import ON_LOAD
from tests.cuda.emulated import API, COMPILE, HERE, HOST, TOOLKIT, objects


@dataclass(frozen=True)
class Emulated(tvm_cuda.Cuda):
    """`archive` is the folder of objects."""

    def kernels(self, nodes: Sequence[TvmNode]) -> tuple[Sequence[str], Sequence[Path]]:
        kinds = sorted(set(map(tvm_cuda.kind_of, nodes)))
        return [*ON_LOAD, *(f"hc_cuda_{kind}" for kind in kinds)], objects(
            self.archive, [*API, *HOST, *kinds]
        )

    def object_of(self, source: Path) -> str:
        # a C++ compiler wants what aligns a variable in front of all else
        text = source.read_text().replace("__shared__ alignas(64)", "alignas(64) static")
        made = source.with_suffix(".cc")
        made.write_text(text)
        return compiled(
            made, source.with_suffix(".o"), f"-I{tvm_ffi.libinfo.find_include_path()}", "-c", "-w"
        )

    def linker(self) -> Sequence[str]:
        return (*NATIVE, "-shared")


def compiled(source: Path, to: Path, *flags: str) -> str:
    subprocess.run([*COMPILE, TOOLKIT, str(source), *flags, "-o", str(to)], check=True)
    return str(to)


def platform(folder: Path) -> Callable[..., Emulated]:
    """What stands for `tvm_cuda.platform`, with objects in `folder`."""
    target = Target({"kind": "cuda", "arch": "sm_80", "host": {"kind": "cuda_host"}})
    return lambda given, show: Emulated(target, NATIVE, folder, False, "", show)


def add_device(folder: Path) -> None:
    """Give TVM a device of kind cuda, in this process."""
    homes = [Path(module.__file__ or "").parent for module in (tvm, tvm_ffi)]
    flags = [flag for home in homes for flag in (f"-I{home}/include", f"-L{home}/lib")]
    made = compiled(
        HERE / "emulated_device.cc", folder / "device.so", "-shared", *flags, "-ltvm_runtime", "-ltvm_ffi"
    )
    ctypes.CDLL(made)
    assert tvm.cuda().exist


def main() -> None:
    from tests.cuda.tvm_cases import check

    folder, target, *names = sys.argv[1:]
    place: Any = tvm_cuda
    place.platform = platform(Path(folder))
    add_device(Path(target))
    for name in names:
        check(name, Path(target))
        print("checked", name, flush=True)


if __name__ == "__main__":
    main()
