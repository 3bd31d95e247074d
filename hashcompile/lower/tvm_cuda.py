"""Libraries for NVIDIA's GPUs: TVM's loops as one CUDA source, our kernels of runtime/cuda, and CUDA's runtime, linked.

TVM's target `cuda_host` makes of every function a host function that launches its kernel, in the stream of whoever
calls. nvcc compiles these, so that nothing is left to compile where the library is loaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from platform import machine
from tempfile import TemporaryDirectory
from typing import Any

import tvm
import tvm_ffi
from tvm.backend.cuda import export_cuda_host
from tvm.ir.transform import Pass
from tvm.runtime import _ffi_api
from tvm.s_tir.dlight import ScheduleRule
from tvm.target import Target

from hashcompile.core.errors import ConfigError
from hashcompile.lower import cross_archive
from hashcompile.lower.compiler import NATIVE, call, nvcc_path
from hashcompile.lower.destination import TVM_CUDA, Destination
from hashcompile.lower.tvm_nodes import TvmNode
from hashcompile.lower.tvm_platform import ON_LOAD, Platform
from hashcompile.lower.tvm_schedules import cuda_pipeline

OLDEST = 80  # that our kernels run on: an A100
OURS = (80, 90)  # that they have code for, in runtime/cuda/CMakeLists.txt; PTX of the last is for later ones
HOST = "hashcompile_tvm_cuda"  # in runtime/cuda/CMakeLists.txt
HOST_CPU = {"kind": "llvm"}  # this machine's
CUDART = "libcudart_static.a"


@dataclass(frozen=True)
class Cuda(Platform):
    """GPUs from one architecture on. `archive` has the host of our nodes; kernels have archives of their own."""

    nvcc: str
    show: bool

    @property
    def to(self) -> Destination:
        return TVM_CUDA

    @property
    def device(self) -> tvm.runtime.Device | None:
        gpu = tvm.cuda()
        if not gpu.exist:
            return None
        version = gpu.compute_version  # such as 8.0; None where TVM's device does not tell
        too_old = version is not None and int(version.replace(".", "")) < architecture_of(self.target)
        return None if too_old else gpu

    def pipeline(self, tuned: ScheduleRule | None) -> Pass:
        return cuda_pipeline(self.target)

    def kernels(self, nodes: Sequence[TvmNode]) -> tuple[Sequence[str], Sequence[Path]]:
        kinds = sorted({kind_of(node) for node in nodes})
        recipes = [recipe(self.nvcc, f"{HOST}_{kind}", hosts=False) for kind in kinds]
        made = [cross_archive.archive(each, self.show) for each in recipes]
        return [*ON_LOAD, *(f"hc_cuda_{kind}" for kind in kinds)], [self.archive, *made]

    def export(self, made: Any, path: Path, addons: list[str]) -> None:
        with TemporaryDirectory() as name:
            functions = [each for each in made.mod.imports if "cu" in each.get_write_formats()]
            for i, host in enumerate(functions):  # none where all is done by nodes of ours
                source = Path(name) / f"functions{i}.cu"
                source.write_text(export_cuda_host(host))
                host.clear_imports()  # the kernels' sources: they are compiled here
                addons.append(self.object_of(source))

            def packed(module: Any, system: bool, prefix: str, folder: str) -> str:
                rest = _ffi_api.ModulePackImportsToLLVM(module, system, json.dumps(HOST_CPU), prefix)
                rest.write_to_file(f"{folder}/imports.o", "o")
                return f"{folder}/imports.o"

            def link(output: str, objects: Sequence[str], **_: Any) -> None:
                given = [each for each in objects if not each.endswith(".cu")]  # it writes the sources, too
                call([*self.linker(), "-o", output, *given])

            made.export_library(str(path), addons=addons, fcompile=link, fpack_imports=packed)

    def object_of(self, source: Path) -> str:
        """The path of the object: code for the target's architecture and all of ours from there on, PTX of the last."""
        first = architecture_of(self.target)
        wanted = sorted({first, *(each for each in OURS if each > first)})
        codes = [f"-gencode=arch=compute_{each},code=sm_{each}" for each in wanted]
        codes.append(f"-gencode=arch=compute_{wanted[-1]},code=compute_{wanted[-1]}")
        include = f"-I{tvm_ffi.libinfo.find_include_path()}"
        flags = ["-std=c++17", "-O3", "-w", "-Xcompiler", "-fPIC,-fvisibility=hidden", include]
        made = str(source.with_suffix(".o"))
        call([self.nvcc, *flags, *codes, "-c", str(source), "-o", made])
        return made

    def linker(self) -> Sequence[str]:
        """Without debug info; CUDA's runtime is ours alone, also where the process has another copy."""
        options = ("-S", "-Bsymbolic", f"--exclude-libs={CUDART}")
        passed = [word for option in options for word in ("-Xlinker", option)]
        return (self.nvcc, "-shared", "-nodlink", "-cudart=static", *passed)


def platform(target: str | Target, show: bool) -> Platform:
    """For "cuda", or a target of that kind. Raises ConfigError, and ExportError where there is no nvcc."""
    if not isinstance(target, Target):
        target = Target({"kind": "cuda", "arch": f"sm_{OLDEST}"})
    if architecture_of(target) < OLDEST:
        raise ConfigError(f"target {target}: our kernels need an arch from sm_{OLDEST} on")
    nvcc = nvcc_path()
    target = Target(target, host=Target({"kind": "cuda_host"}))
    return Cuda(target, NATIVE, cross_archive.archive(recipe(nvcc, HOST), show), False, nvcc, show)


def architecture_of(target: Target) -> int:
    """90 of sm_90, and of sm_90a; 0 where none is told."""
    found = re.match(r"sm_(\d+)", str(target.attrs.get("arch", "")))
    return int(found[1]) if found else 0


def recipe(nvcc: str, target: str, hosts: bool = True) -> cross_archive.Recipe:
    settings = {"HC_CUDA": "ON", "HC_NVCC": nvcc}
    return cross_archive.Recipe(target, f"cuda-{machine()}", ((nvcc,), NATIVE), settings, hosts)


def kind_of(node: TvmNode) -> str:
    """Which of our kernels computes a node, as runtime/cuda/problem.h names them."""
    return "hashes" if node.operator == "HashedLinear" else f"{node.attributes['bits']}_bits"
