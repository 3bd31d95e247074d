"""TVM's module and our nodes, compiled and linked into one shared library."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from platform import machine
from tempfile import TemporaryDirectory

import torch
import tvm
from torch import Tensor
from tvm import relax
from tvm.target import Target

from hashcompile.core.errors import ConfigError, ExportError
from hashcompile.core.signature import Batch
from hashcompile.lower.tvm import Lowered
from hashcompile.lower.tvm_nodes import encode
from hashcompile_runtime import tvm_archive_path

# The assembler puts the bytes into read-only data, which the system maps from the file. The last word is what makes the
# linker take our function out of its archive.
DATA = """\
    .section .rodata
    .balign 4096
    .globl hc_nodes
    .hidden hc_nodes
hc_nodes:
    .incbin "{name}"
    .section .data.rel.ro,"aw"
    .quad __tvm_ffi_hc_node
    .section .note.GNU-stack,"",%progbits
"""


@dataclass(frozen=True)
class Platform:
    """What a library is made for."""

    target: Target
    compiler: str  # drives assembler and linker
    archive: Path  # our kernels


def platform(target: str | Target) -> Platform:
    """For "cpu", or a target of TVM's own that this machine runs. Raises ConfigError."""
    if target == "cpu":
        # eight years of CPUs; our kernels look for more when they are loaded
        target = Target({"kind": "llvm", **({"mcpu": "x86-64-v3"} if machine() == "x86_64" else {})})
    if not isinstance(target, Target):
        raise ConfigError(f'target={target!r}: wanted "cpu" or a tvm.target.Target')
    if target.kind.name != "llvm":
        raise ConfigError(f"target {target}: libraries are made for CPUs only, which TVM calls llvm")
    return Platform(target, "c++", tvm_archive_path())


def build(lowered: Lowered, where: Platform, path: Path) -> None:
    """Write the library to `path`. Raises ExportError."""
    with TemporaryDirectory() as name:
        addons = linked(lowered, where, Path(name)) if lowered.nodes else []
        try:
            made = tvm.compile(lowered.module, where.target)
            made.export_library(str(path), addons=addons, cc=where.compiler)
        except Exception as error:
            raise ExportError(f"TVM could not compile the model for {where.target}: {error}") from error


def linked(lowered: Lowered, where: Platform, folder: Path) -> list[str]:
    """What is linked to TVM's own code: our nodes, as an object, and our kernels."""
    (folder / "nodes.bin").write_bytes(encode(lowered.nodes))
    (folder / "nodes.S").write_text(DATA.format(name="nodes.bin"))
    command = [where.compiler, "-c", "nodes.S", "-o", "nodes.o"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise ExportError(f"a TVM library needs a C++ compiler: there is no {where.compiler}") from error
    except subprocess.CalledProcessError as error:
        raise ExportError(f"{' '.join(command)} failed: {error.stderr.strip()}") from error
    return [str(folder / "nodes.o"), str(where.archive)]


def runner(path: Path) -> Callable[[Batch], list[Tensor]]:
    """The library, loaded into this process."""
    main = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())["main"]

    def run(batch: Batch) -> list[Tensor]:
        outputs = main(*(tvm.runtime.tensor(each.detach().contiguous().numpy()) for each in batch))
        return [torch.from_numpy(each.numpy().copy()) for each in outputs]

    return run
