"""What a TVM library computes besides compressed layers: single operators beside ONNX Runtime, on one thread.

    python benchmarks/operators.py [--only 'conv*'] [--runs 50]

Each is a model of its own with nothing to compress, written by `export_tvm` and by PyTorch's ONNX exporter, in turns.
The last column is the library's time over ONNX Runtime's: below 1 is faster. `models.py --peers tvm` has what TVM makes
of whole models by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from torch.nn import functional
from zoo.artifacts import export_fp32

import hashcompile as hc
from hashcompile.bench import Settings, bench, contenders
from hashcompile.bench_inputs import Sizes
from hashcompile.core.console import progress, show, table


class Operator(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function  # a layer, or what has no parameters

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


CASES: dict[str, tuple[Callable[[Tensor], Any], tuple[int, ...]]] = {  # and the shape of x
    "linear": (nn.Linear(384, 1536), (128, 384)),
    "conv 3x3": (nn.Conv2d(64, 64, 3, padding=1), (1, 64, 32, 32)),
    "conv depthwise": (nn.Conv2d(96, 96, 3, padding=1, groups=96), (1, 96, 56, 56)),
    "conv transposed 2x2": (nn.ConvTranspose2d(64, 32, 2, stride=2), (1, 64, 32, 32)),
    "conv transposed 4x4": (nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1), (1, 64, 32, 32)),
    "conv 3d": (nn.Conv3d(16, 16, 3, padding=1), (1, 16, 8, 16, 16)),
    "softmax": (lambda x: x.softmax(-1), (96, 128, 128)),
    "softmax over channels": (lambda x: x.softmax(1), (8, 64, 32, 32)),
    "log softmax": (lambda x: x.log_softmax(-1), (64, 1000)),
    "gelu": (functional.gelu, (8, 128, 1536)),
    "gelu, tanh": (lambda x: functional.gelu(x, approximate="tanh"), (8, 128, 1536)),
    "silu": (functional.silu, (8, 128, 1536)),
    "layer norm": (nn.LayerNorm(384), (8, 128, 384)),
    "group norm": (nn.GroupNorm(8, 64), (8, 64, 32, 32)),
    "instance norm": (nn.InstanceNorm2d(64), (8, 64, 32, 32)),
    "max pool 3x3": (nn.MaxPool2d(3, 2, 1), (8, 64, 32, 32)),
    "average pool 2x2": (nn.AvgPool2d(2), (8, 64, 32, 32)),
    "product of activations": (lambda x: x @ x.transpose(1, 2), (8, 128, 384)),
}


def measure(name: str, runs: int, folder: Path) -> tuple[float, float]:
    """Milliseconds of the library, and of ONNX Runtime."""
    function, shape = CASES[name]
    model, example = Operator(function).eval(), (torch.randn(2, *shape[1:]),)
    library, file = folder / "operator.so", folder / "operator.onnx"
    made = hc.compile(model, example, hc.PruneChannels(0), compute="float", progress=False)
    made.export_tvm(library, show=False)
    export_fp32(model, example, ({0: torch.export.Dim("batch")},), file)
    settings = Settings(1, runs, Sizes(shape[0]))
    mine, theirs = bench(contenders([library, file]), settings, False)
    return mine.p50_ms, theirs.p50_ms


def main(
    only: Annotated[list[str] | None, typer.Option(help="Globs over the operators; repeatable.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Of each file.")] = 50,
) -> None:
    """Print a row for each operator."""
    torch.set_num_threads(1)
    names = [name for name in CASES if not only or any(fnmatch(name, glob) for glob in only)]
    rows = []
    with TemporaryDirectory() as folder, progress("operators", len(names)) as bar:
        for name in names:
            mine, theirs = measure(name, runs, Path(folder))
            shape = " x ".join(map(str, CASES[name][1]))
            rows.append((name, shape, f"{mine:.3f}", f"{theirs:.3f}", f"{mine / theirs:.2f}"))
            bar.advance()
    show(table(("operator", "input", ">TVM library, ms", ">ONNX Runtime, ms", ">ratio"), rows))


if __name__ == "__main__":
    typer.run(main)
