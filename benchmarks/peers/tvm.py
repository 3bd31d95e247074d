"""TVM: what we make for it, with everything encoded and with nothing, and what it makes of the model by itself."""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from contest.peer import TVM_ENGINE, Peer
from contest.prepared import prepared
from contest.subject import Subject

import hashcompile as hc

from . import ours

LIBRARY = "model.so"
NEEDS = ("apache-tvm",)


def ours_encoded(subject: Subject, folder: Path) -> list[str]:
    ours.made(prepared(ours.PEER, subject)).export_tvm(folder / LIBRARY)
    return [LIBRARY]


def ours_dense(subject: Subject, folder: Path) -> list[str]:
    """Every layer stays fp32."""
    example, shapes = dict(subject.example), subject.dynamic_shapes
    nothing = hc.PruneChannels(0)
    made = hc.compile(subject.model, example, nothing, dynamic_shapes=shapes, compute="float")
    made.export_tvm(folder / LIBRARY)
    return [LIBRARY]


def plain(subject: Subject, folder: Path) -> list[str]:
    """The importer, and the pipeline that TVM has for CPUs, for the very processor that it runs on."""
    import tvm
    from tvm.relax.frontend.torch import from_exported_program

    with torch.no_grad():
        program = torch.export.export(
            subject.model, (), dict(subject.example), dynamic_shapes=subject.dynamic_shapes
        )
        module = from_exported_program(program.run_decompositions(), run_ep_decomposition=False)
    target = tvm.target.Target({"kind": "llvm", "mcpu": tvm.target.codegen.llvm_get_system_cpu()})
    tvm.compile(module, target).export_library(str(folder / LIBRARY))
    return [LIBRARY]


def peer(name: str, what: str, prepare: Callable[[Subject, Path], list[str]], own: bool) -> Peer:
    needs = (*(("hashcompile", "hashcompile-runtime") if own else ()), *NEEDS)
    options = {"machine": platform.machine(), "cuda": False}
    return Peer(name, what, needs, TVM_ENGINE, prepare, options, ours.SOURCES if own else ())


own = partial(peer, own=True)
PEERS = (
    own("tvm ours", "what `ours` is, as a library for TVM", ours_encoded),
    own("tvm ours fp32", "nothing encoded, our kernels in a library for TVM", ours_dense),
    peer("tvm", "TVM as it comes", plain, own=False),
)
