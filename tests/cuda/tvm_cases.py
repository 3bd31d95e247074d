"""Models whose CUDA libraries run on the emulated GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import tvm

import hashcompile as hc
from hashcompile.core.method import Compute
from hashcompile.lower.tvm_library import runner
from tests.cuda.network import METHOD, Network
from tests.models import build


@dataclass(frozen=True)
class Case:
    build: Callable[[], tuple[torch.nn.Module, Callable[[int], tuple[torch.Tensor, ...]]]]
    method: Any = field(default_factory=lambda: hc.Codebook(bits=4))
    compute: Compute = "float"


def network() -> tuple[torch.nn.Module, Callable[[int], tuple[torch.Tensor, ...]]]:
    torch.manual_seed(0)
    return Network().eval(), lambda batch: (torch.randint(0, 50, (batch, 4, 6)),)


CASES: Mapping[str, Case] = {
    "network": Case(network, METHOD),
    "cnn": Case(lambda: build("cnn"), compute="int8"),
    "embedding": Case(lambda: build("embedding")),
    "attention": Case(lambda: build("attention")),
}


def check(name: str, folder: Path) -> None:
    """Export the case, which runs it, and run it with other sizes of batch."""
    case = CASES[name]
    model, inputs = case.build()
    compiled = hc.compile(model, inputs(2), case.method, compute=case.compute, progress=False)
    file = folder / f"{name}.so"
    (done,) = compiled.export_tvm(file, target="cuda", show=False)
    assert done.error <= done.tolerance == 1e-4
    run = runner(file, tvm.cuda())
    for batch in (1, 3, 5):
        given = inputs(batch)
        wanted = compiled(*given)
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        for got, want in zip(run(given), wanted, strict=True):
            torch.testing.assert_close(got, want.detach(), rtol=1e-4, atol=1e-5)
