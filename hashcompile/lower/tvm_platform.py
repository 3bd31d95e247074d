"""What a TVM library is made for: how TVM compiles for it, and what is linked to that. Here CPUs; GPUs in tvm_cuda."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from platform import machine
from typing import Any

import tvm
from tvm.ir.transform import Pass
from tvm.s_tir.dlight import ScheduleRule
from tvm.target import Target, codegen

from hashcompile.core.errors import ConfigError
from hashcompile.lower import cross_archive
from hashcompile.lower.compiler import NATIVE, Command, arm64, call
from hashcompile.lower.destination import TVM, Destination
from hashcompile.lower.tvm_nodes import TvmNode
from hashcompile.lower.tvm_schedules import pipeline
from hashcompile_runtime import cpu_features, tvm_archive_path

# Eight years of CPUs; our kernels look for more when they are loaded.
X86 = {"kind": "llvm", "mcpu": "x86-64-v3"}
ARM64 = {"kind": "llvm", "mtriple": "aarch64-linux-gnu"}
ON_LOAD = ("__tvm_ffi_hc_node",)  # what makes a linker take our function out of its archive


@dataclass(frozen=True)
class Platform:
    """A kind of CPU."""

    target: Target
    compiler: Command  # drives assembler and linker
    archive: Path  # our kernels
    native: bool  # this machine runs it

    @property
    def to(self) -> Destination:
        return TVM

    @property
    def device(self) -> tvm.runtime.Device | None:
        """Where this machine runs it; None: it cannot."""
        return tvm.cpu() if self.native else None

    def pipeline(self, tuned: ScheduleRule | None) -> Pass:
        return pipeline(self.target, tuned)

    def kernels(self, nodes: Sequence[TvmNode]) -> tuple[Sequence[str], Sequence[Path]]:
        """The symbols that `nodes` need, and the archives that have them. Raises ExportError."""
        return ON_LOAD, [self.archive]

    def export(self, made: Any, path: Path, addons: list[str]) -> None:
        """Link what TVM compiled, and `addons`. Raises ExportError."""

        def link(output: str, objects: Sequence[str], options: Sequence[str] = ()) -> None:
            # without debug info; options are for C, which TVM writes where nothing is to be computed
            call([*self.compiler, "-shared", "-fPIC", "-Wl,-S", "-o", output, *options, *objects])

        made.export_library(str(path), addons=addons, fcompile=link)


def cpu(target: str | Target, show: bool) -> Platform:
    """For "cpu", "arm64", or a target of TVM's own for one of these. Raises ConfigError, and ExportError where what
    compiles for another machine is missing.
    """
    if target == "cpu":
        target = Target(X86 if machine() == "x86_64" else {"kind": "llvm"})
    elif target == "arm64":
        target = Target(ARM64)
    if not isinstance(target, Target):
        raise ConfigError(f'target={target!r}: wanted "cpu", "arm64", "cuda" or a tvm.target.Target')
    if target.kind.name != "llvm":
        raise ConfigError(
            f"target {target}: libraries are made for CPUs, which TVM calls llvm, and for GPUs of kind cuda"
        )
    triple = str(target.attrs.get("mtriple") or f"{machine()}-linux-gnu").split("-")
    linux = triple[-2:] == ["linux", "gnu"]
    mcpu = str(target.attrs.get("mcpu", "generic"))
    if linux and not codegen.llvm_is_valid_cpu(mcpu, "-".join(triple)):  # TVM would take a generic one
        raise ConfigError(f"target {target}: LLVM knows no CPU {mcpu} of kind {triple[0]}")
    if triple[0] == machine() and linux:
        check_here(target)
        return Platform(target, NATIVE, tvm_archive_path(), native=True)
    if triple[0] == "aarch64" and linux:
        compiler = arm64()
        archive = cross_archive.archive(cross_archive.for_machine(compiler, triple[0]), show)
        return Platform(target, compiler, archive, native=False)
    raise ConfigError(
        f"target {target}: libraries are made for this machine, {machine()}-linux-gnu, and for aarch64-linux-gnu"
    )


def check_here(target: Target) -> None:
    """Raise ConfigError for a CPU of this machine's kind whose code this machine's CPU could not run."""
    needed = {str(feature) for feature in codegen.llvm_get_cpu_features(target)}
    if machine() == "x86_64" and "64bit" not in needed:
        raise ConfigError(
            f"target {target}: a CPU of 32 bits; wanted one of 64"
        )  # LLVM would end this process
    lacking = [name for name, here in cpu_features().items() if name in needed and not here]
    if lacking:
        raise ConfigError(
            f"target {target}: this machine's CPU has no {', '.join(lacking)}, so the library would crash here; "
            'a tvm.target.Target({"kind": "llvm", "mcpu": ...}) makes one for older CPUs'
        )
