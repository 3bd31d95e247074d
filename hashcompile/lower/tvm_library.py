"""TVM's module and our nodes, compiled and linked into one shared library."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from platform import machine
from tempfile import TemporaryDirectory

import torch
import tvm
from torch import Tensor
from tvm import relax
from tvm.s_tir.dlight import ScheduleRule
from tvm.target import Target

from hashcompile.core import interface
from hashcompile.core.errors import ConfigError, ExportError
from hashcompile.core.signature import Batch
from hashcompile.lower import cross_archive
from hashcompile.lower.compiler import NATIVE, Command, arm64, call
from hashcompile.lower.tvm import Lowered
from hashcompile.lower.tvm_nodes import encode
from hashcompile.lower.tvm_schedules import pipeline
from hashcompile_runtime import tvm_archive_path

# The assembler puts the bytes into read-only data, which the system maps from the file. The last word is what makes the
# linker take our function out of its archive.
DATA = """\
    .section .rodata
    .balign 4096
    .globl hc_nodes
    .hidden hc_nodes
hc_nodes:
    .incbin "nodes.bin"
    .section .data.rel.ro,"aw"
    .quad __tvm_ffi_hc_node
    .section .note.GNU-stack,"",%progbits
"""

# What the library takes, for whoever cannot or will not load it.
INTERFACE = f"""\
    .section {interface.SECTION},"a",%progbits
    .incbin "interface.json"
    .section .note.GNU-stack,"",%progbits
"""


# Eight years of CPUs; our kernels look for more when they are loaded.
X86 = {"kind": "llvm", "mcpu": "x86-64-v3"}
ARM64 = {"kind": "llvm", "mtriple": "aarch64-linux-gnu"}


@dataclass(frozen=True)
class Platform:
    """What a library is made for."""

    target: Target
    compiler: Command  # drives assembler and linker
    archive: Path  # our kernels
    native: bool  # this machine runs it


def platform(target: str | Target, show: bool = False) -> Platform:
    """For "cpu", "arm64", or a target of TVM's own for one of these. Raises ConfigError, and ExportError where what
    compiles for another machine is missing.
    """
    if target == "cpu":
        target = Target(X86 if machine() == "x86_64" else {"kind": "llvm"})
    elif target == "arm64":
        target = Target(ARM64)
    if target == "cuda" or (isinstance(target, Target) and target.kind.name == "cuda"):
        raise ConfigError(
            "target cuda: TVM libraries are made for CPUs only, so far; on a GPU `compiled.graph_module` computes on "
            "the codes"
        )
    if not isinstance(target, Target):
        raise ConfigError(f'target={target!r}: wanted "cpu", "arm64" or a tvm.target.Target')
    if target.kind.name != "llvm":
        raise ConfigError(f"target {target}: libraries are made for CPUs only, which TVM calls llvm")
    triple = str(target.attrs.get("mtriple", "")).split("-")
    if triple[0] in ("", machine()):
        return Platform(target, NATIVE, tvm_archive_path(), native=True)
    if triple[0] == "aarch64" and triple[-2:] == ["linux", "gnu"]:
        compiler = arm64()
        return Platform(target, compiler, cross_archive.archive(compiler, triple[0], show), native=False)
    raise ConfigError(f"target {target}: libraries are made for this machine and for aarch64-linux-gnu")


def build(lowered: Lowered, where: Platform, path: Path, tuned: ScheduleRule | None = None) -> None:
    """Write the library to `path`; `tuned` schedules the loops that it knows. Raises ExportError."""

    def link(output: str, objects: Sequence[str]) -> None:
        call([*where.compiler, "-shared", "-fPIC", "-Wl,-S", "-o", output, *objects])  # without debug info

    with TemporaryDirectory() as name:
        addons = linked(lowered, where, Path(name))
        try:
            with where.target:
                made = tvm.compile(lowered.module, relax_pipeline=pipeline(where.target, tuned))
            made.export_library(str(path), addons=addons, fcompile=link)
        except ExportError:
            raise
        except Exception as error:
            raise ExportError(f"TVM could not compile the model for {where.target}: {error}") from error


def linked(lowered: Lowered, where: Platform, folder: Path) -> list[str]:
    """What is linked to TVM's own code: what the model takes, and if there are nodes of ours, these and our kernels."""
    (folder / "interface.json").write_bytes(interface.encode(lowered.signature))
    objects = [assembled(INTERFACE, "interface", where, folder)]
    if lowered.nodes:
        (folder / "nodes.bin").write_bytes(encode(lowered.nodes))
        objects += [assembled(DATA, "nodes", where, folder), str(where.archive)]
    return objects


def assembled(source: str, name: str, where: Platform, folder: Path) -> str:
    """The path of the object. Raises ExportError."""
    (folder / f"{name}.S").write_text(source)
    call([*where.compiler, "-c", f"{name}.S", "-o", f"{name}.o"], folder)
    return str(folder / f"{name}.o")


@contextmanager
def running(
    lowered: Lowered, where: Platform, path: Path, tuned: ScheduleRule | None = None
) -> Iterator[Callable[[Batch], list[Tensor]]]:
    """The library at `path`; where this machine cannot run it, one made from the same module that it can run."""
    with TemporaryDirectory() as name:
        if not where.native:
            path = Path(name) / path.name
            build(lowered, platform("cpu"), path, tuned)
        yield runner(path)


def runner(path: Path) -> Callable[[Batch], list[Tensor]]:
    """The library, loaded into this process."""
    main = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())["main"]

    def run(batch: Batch) -> list[Tensor]:
        outputs = main(*(tvm.runtime.tensor(each.detach().contiguous().numpy()) for each in batch))
        return [torch.from_numpy(each.numpy().copy()) for each in outputs]

    return run


def values_inside(
    lowered: Lowered, where: Platform, batches: Sequence[Batch], tuned: ScheduleRule | None = None
) -> list[list[tuple[str, Tensor]]]:
    """What the exposed nodes compute on this machine, one a batch, each with its name in the compressed graph. Raises
    ExportError.

    The library that differs tells its outputs only, so another is made.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "exposed.so"
        build(lowered, where if where.native else platform("cpu"), path, tuned)
        found = [values[len(values) - len(lowered.exposed) :] for values in map(runner(path), batches)]
    return [list(zip(lowered.exposed, values, strict=True)) for values in found]
