"""Models whose CUDA libraries run on the emulated GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tvm

import hashcompile as hc
from hashcompile import bench_tvm
from hashcompile.core.method import Compute
from hashcompile.lower.tvm_library import runner
from hashcompile.model_file import read
from tests.cuda.network import METHOD, Network
from tests.models import build, normal


@dataclass(frozen=True)
class Case:
    build: Callable[[], tuple[torch.nn.Module, Callable[[int], tuple[torch.Tensor, ...]]]]
    method: Any = field(default_factory=lambda: hc.Codebook(bits=4))
    compute: Compute = "float"
    sizes: tuple[int, ...] = (1, 3, 5)  # of batches; of one, the model's is fixed


def network() -> tuple[torch.nn.Module, Callable[[int], tuple[torch.Tensor, ...]]]:
    torch.manual_seed(0)
    return Network().eval(), lambda batch: (torch.randint(0, 50, (batch, 4, 6)),)


CASES: Mapping[str, Case] = {
    "network": Case(network, METHOD),
    "cnn": Case(lambda: build("cnn"), compute="int8"),
    "embedding": Case(lambda: build("embedding")),
    "one node": Case(lambda: (torch.nn.Linear(16, 24).eval(), normal(16)), sizes=(2,)),
    "attention": Case(lambda: build("attention")),
}


def check(name: str, folder: Path) -> None:
    """Export the case, which runs it, and run it with other sizes of batch."""
    case = CASES[name]
    model, inputs = case.build()
    fixed = len(case.sizes) == 1
    compiled = hc.compile(
        model, inputs(2), case.method, compute=case.compute, dynamic_batch=not fixed, progress=False
    )
    file = folder / f"{name.replace(' ', '_')}.so"
    (done,) = compiled.export_tvm(file, target="cuda", show=False)
    assert done.error <= done.tolerance == 1e-4
    run = runner(file, tvm.cuda())
    for batch in case.sizes:
        given = inputs(batch)
        wanted = compiled(*given)
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        for got, want in zip(run(given), wanted, strict=True):
            torch.testing.assert_close(got, want.detach(), rtol=1e-4, atol=1e-5)
    measured(file, inputs(case.sizes[-1]))


def measured(file: Path, given: tuple[torch.Tensor, ...]) -> None:
    """`bench` runs it where its inputs belong."""
    names = [declared.name for declared in read(file).inputs]
    np.savez(file.with_suffix(".npz"), **{name: x.numpy() for name, x in zip(names, given, strict=True)})
    model = bench_tvm.load({"files": [str(file)], "cuda": read(file).cuda, "names": names})
    bound = bench_tvm.bind(model, {"inputs": str(file.with_suffix(".npz"))})
    bound()
    assert bound.device == tvm.cuda() == bound.tensors[0].device
