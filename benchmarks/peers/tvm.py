"""TVM: what we make for it, with everything encoded and with nothing, and what it makes of the model by itself."""

from __future__ import annotations

import platform
from functools import partial
from pathlib import Path

import torch
from contest.peer import TVM_ENGINE, TVM_SIZES_ENGINE, Peer
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
    """The importer, and the pipeline that TVM has for CPUs, for the very processor that it runs on. A library for each
    case, of its sizes: some models do not compile where sizes are symbolic.
    """
    import tvm
    from tvm.relax.frontend.torch import from_exported_program

    target = tvm.target.Target({"kind": "llvm", "mcpu": tvm.target.codegen.llvm_get_system_cpu()})
    cases = {
        "_".join("x".join(map(str, x.shape)) for x in case.values()): case for case in subject.cases.values()
    }
    for sizes, inputs in cases.items():
        with torch.no_grad():
            program = torch.export.export(subject.model, (), dict(inputs)).run_decompositions()
            module = from_exported_program(program, run_ep_decomposition=False)
        tvm.compile(module, target).export_library(str(folder / f"{sizes}.so"))
    return [f"{sizes}.so" for sizes in cases]


OPTIONS = {"machine": platform.machine(), "cuda": False}
own = partial(
    Peer,
    needs=("hashcompile", "hashcompile-runtime", *NEEDS),
    engine=TVM_ENGINE,
    options=OPTIONS,
    sources=ours.SOURCES,
)
PEERS = (
    own("tvm ours", "what `ours` is, as a library for TVM", prepare=ours_encoded),
    own("tvm ours fp32", "nothing encoded, our kernels in a library for TVM", prepare=ours_dense),
    Peer("tvm", "TVM as it comes", NEEDS, TVM_SIZES_ENGINE, plain, {**OPTIONS, "base": str(TVM_ENGINE)}),
)
