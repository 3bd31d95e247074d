"""Does a sparse product pay? One linear layer, by sparsity and by rows of activations, on one thread.

    python benchmarks/sparse.py [--quick] [--rounds 5]

Beside the dense fp32 product of PyTorch (1.00): what scipy and PyTorch compute from a matrix in CSR, and our int8
kernel on 4-bit codes, which reads every weight. Figures are times of the dense product over theirs: above 1 is faster.
All take turns, and a figure is the median over the rounds of the ratio within one round, so that all see the same
machine. PyTorch multiplies 2:4 patterns on GPUs only; there is no product of that form on a CPU here to measure.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import scipy.sparse
import torch
import typer
from zoo import single

import hashcompile_runtime as hcrt

SIDES = (1024, 4096)
ROWS = (1, 8, 64)
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.99)
LEAST = 0.01  # seconds of one turn

Run = Callable[[], object]


def contenders(side: int, rows: int, sparsity: float, folder: Path) -> dict[str, Run]:
    """Of the same pattern, drawn at random; the columns of X are activations where CSR comes first."""
    draw = torch.Generator().manual_seed(0)
    kept = torch.rand(side, side, generator=draw) >= sparsity
    weight, x = torch.randn(side, side, generator=draw) * kept, torch.randn(rows, side, generator=draw)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        csr = weight.to_sparse_csr()
    scipy_csr, columns = scipy.sparse.csr_matrix(weight.numpy()), x.T.contiguous()
    held = columns.numpy()
    file = folder / f"{side}.onnx"
    if not file.exists():
        single.write_codebook_linear(file, side, side)
    session, feeds = hcrt.session(file, threads=1), {"input": x.numpy()}
    return {
        "dense": lambda: torch.nn.functional.linear(x, weight),
        "scipy CSR": lambda: scipy_csr @ held,
        "torch CSR": lambda: csr @ columns,
        "4-bit codes": lambda: session.run(None, feeds),
    }


def seconds(run: Run, calls: int) -> float:
    """CPU time of this thread, which other work on the machine does not count in."""
    start = time.thread_time()
    for _ in range(calls):
        run()
    return (time.thread_time() - start) / calls


def ratios(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    """Dense time over theirs."""
    calls = {name: max(1, int(LEAST / max(1e-7, seconds(run, 2)))) for name, run in runs.items()}
    taken = [{name: seconds(run, calls[name]) for name, run in runs.items()} for _ in range(rounds)]
    return {name: median(turn["dense"] / turn[name] for turn in taken) for name in runs}


def main(quick: bool = False, rounds: int = 5) -> None:
    torch.set_num_threads(1)
    others = ("scipy CSR", "torch CSR", "4-bit codes")
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for side in SIDES[:1] if quick else SIDES:
            for rows in ROWS:
                print(
                    f"\n| {side} x {side}, M = {rows} | {' | '.join(others)} |\n|---|{'---|' * len(others)}"
                )
                for sparsity in SPARSITIES:
                    found = ratios(contenders(side, rows, sparsity, Path(folder)), 1 if quick else rounds)
                    cells = " | ".join(f"{found[name]:.2f}" for name in others)
                    print(f"| {sparsity:.0%} | {cells} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
