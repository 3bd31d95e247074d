"""TVM's module and our nodes, compiled and linked into one shared library."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import tvm
from torch import Tensor
from tvm import relax
from tvm.s_tir.dlight import ScheduleRule
from tvm.target import Target

from hashcompile.core import interface
from hashcompile.core.errors import ExportError, VerificationError
from hashcompile.core.signature import Batch
from hashcompile.lower import tvm_cuda
from hashcompile.lower.compiler import call
from hashcompile.lower.destination import wants_cuda
from hashcompile.lower.tvm import Lowered
from hashcompile.lower.tvm_culprit import culprit
from hashcompile.lower.tvm_nodes import encode
from hashcompile.lower.tvm_platform import Platform, cpu

# The assembler puts the bytes into read-only data, which the system maps from the file. Words that name symbols make
# the linker take what has them out of its archives.
DATA = """\
    .section .rodata
    .balign 4096
    .globl hc_nodes
    .hidden hc_nodes
hc_nodes:
    .incbin "nodes.bin"
    .section .data.rel.ro,"aw"
{symbols}
    .section .note.GNU-stack,"",%progbits
"""

# What the library takes, for whoever cannot or will not load it.
INTERFACE = f"""\
    .section {interface.SECTION},"a",%progbits
    .incbin "interface.json"
    .section .note.GNU-stack,"",%progbits
"""


def platform(target: str | Target, show: bool = False) -> Platform:
    """For "cpu", "arm64", "cuda", or a target of TVM's own for one of these. Raises ConfigError, and ExportError where
    what compiles for it is missing.
    """
    if wants_cuda(target):
        return tvm_cuda.platform(target, show)
    return cpu(target, show)


def build(lowered: Lowered, where: Platform, path: Path, tuned: ScheduleRule | None = None) -> None:
    """Write the library to `path`; `tuned` schedules the loops that it knows. Raises ExportError."""
    with TemporaryDirectory() as name:
        addons = linked(lowered, where, Path(name))
        try:
            with where.target:
                made = tvm.compile(lowered.module, where.target, relax_pipeline=where.pipeline(tuned))
            where.export(made, path, addons)
        except ExportError:
            raise
        except Exception as error:
            what = culprit(lowered, where) or "the model"
            raise ExportError(f"TVM could not compile {what} for {where.target}: {error}") from error


def linked(lowered: Lowered, where: Platform, folder: Path) -> list[str]:
    """What is linked to TVM's own code: what the model takes, and if there are nodes of ours, these and our kernels."""
    (folder / "interface.json").write_bytes(interface.encode(lowered.signature, where.target.kind.name))
    objects = [assembled(INTERFACE, "interface", where, folder)]
    if lowered.nodes:
        (folder / "nodes.bin").write_bytes(encode(lowered.nodes))
        symbols, archives = where.kernels(lowered.nodes)
        words = "\n".join(f"    .quad {symbol}" for symbol in symbols)
        objects.append(assembled(DATA.format(symbols=words), "nodes", where, folder))
        objects += map(str, archives)
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
    """The library at `path`; where this machine cannot run it, one made from the same module that it can run. Raises
    ExportError where that cannot be made, VerificationError where TVM cannot load it.
    """
    with TemporaryDirectory() as name:
        if where.device is None:
            path = Path(name) / path.name
            build(lowered, platform("cpu"), path, tuned)
        yield runner(path, where.device)


def runner(path: Path, device: tvm.runtime.Device | None = None) -> Callable[[Batch], list[Tensor]]:
    """The library, loaded into this process; `device` is that of its kind, else the CPU. Raises VerificationError."""
    device = device or tvm.cpu()
    try:
        main = relax.VirtualMachine(tvm.runtime.load_module(str(path)), device)["main"]
    except Exception as error:
        raise VerificationError(f"TVM cannot load {path.name}: {error}") from error

    def run(batch: Batch) -> list[Tensor]:
        outputs = main(*(tvm.runtime.tensor(each.detach().contiguous().numpy(), device) for each in batch))
        return [read(each) for each in outputs]

    return run


def read(output: Any) -> Tensor:
    """An output of a library; a size is one, too."""
    if not isinstance(output, tvm.runtime.Tensor):
        return torch.as_tensor(output)
    if output.dtype == "bfloat16":  # numpy has none
        return torch.from_numpy(output.numpy().astype("float32")).bfloat16()
    return torch.from_numpy(output.numpy().copy())


def values_inside(
    lowered: Lowered, where: Platform, batches: Sequence[Batch], tuned: ScheduleRule | None = None
) -> list[list[tuple[str, Tensor]]]:
    """What the exposed nodes compute on this machine, one a batch, each with its name in the compressed graph. Raises
    ExportError, VerificationError.

    The library that differs tells its outputs only, so another is made.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "exposed.so"
        here = where if where.device is not None else platform("cpu")
        build(lowered, here, path, tuned)
        run = runner(path, here.device)
        found = [values[len(values) - len(lowered.exposed) :] for values in map(run, batches)]
    return [list(zip(lowered.exposed, values, strict=True)) for values in found]
