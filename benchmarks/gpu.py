"""One linear layer on a GPU: our kernels beside PyTorch's fp16 and bf16 products, torchao's int4, and the limit.

    python benchmarks/gpu.py [--bits 4] [--side 4096] [--rounds 9] [--out build/benchmarks/gpu.json]

A figure is the median over rounds of the time of a call in microseconds, by events of the stream; all take turns. Each
contender reads its weights from copies that together are larger than the L2 cache, one after the other. The limit is
the bytes of the codes over the bandwidth that copying within the GPU's memory reaches in the same run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median

import torch
import typer
from torch import Tensor, nn

from hashcompile.core.device_ops import DTYPES, array
from hashcompile.core.packing import pack
from hashcompile_runtime.cuda import NOTHING, Array, CudaCall, CudaPath, codebook_weight, cuda_kernels

ROWS = (1, 2, 4, 8, 16, 64, 256, 1024, 4096)
CALLS = 50  # of a turn
LARGE = 1 << 30  # bytes copied to find the bandwidth

Run = Callable[[], object]


def microseconds(run: Run, calls: int = CALLS) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return 1e3 * start.elapsed_time(end) / calls


def bandwidth() -> float:
    """Bytes a microsecond, read and written."""
    source = torch.empty(LARGE, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * LARGE / min(microseconds(lambda: target.copy_(source), 5) for _ in range(5))


def copies(nbytes: int) -> int:
    """Of weights, so that none is still in the L2 cache when its turn comes."""
    return max(1, -(-2 * torch.cuda.get_device_properties(0).L2_cache_size // nbytes))


def in_turns(runs: list[Run]) -> Run:
    turn = count()
    return lambda: runs[next(turn) % len(runs)]()


def ours(bits: int, side: int, x: Tensor, path: CudaPath) -> Run:
    kernels = cuda_kernels()
    assert kernels is not None
    draw = torch.Generator().manual_seed(0)
    indices = torch.randint(0, 2**bits, (side, side), generator=draw, dtype=torch.uint8)
    packed = torch.from_numpy(pack(indices.numpy(), bits))
    held = [packed.cuda() for _ in range(copies(packed.numel()))]
    table, scale = torch.randn(1, 2**bits, generator=draw).cuda(), torch.ones(side, device="cuda")
    y = torch.empty(len(x), side, dtype=x.dtype, device="cuda")
    room = torch.empty(kernels.workspace(len(x), side), dtype=torch.uint8, device="cuda")
    space = Array(room.data_ptr(), room.numel()) if room.numel() else NOTHING
    stream = torch.cuda.current_stream().cuda_stream
    call = CudaCall(DTYPES[x.dtype], x.data_ptr(), y.data_ptr(), space, stream, path)
    weights = [codebook_weight(bits, (side, side), 0, *map(array, (each, table, scale))) for each in held]
    kept = held, table, scale, room, y  # as long as the runs are
    runs: list[Run] = [
        lambda weight=weight, _kept=kept: kernels.linear(weight, call, len(x)) for weight in weights
    ]
    return in_turns(runs)


def dense(side: int, x: Tensor) -> Run:
    weights = [
        torch.randn(side, side, device="cuda").to(x.dtype) for _ in range(copies(side * side * x.itemsize))
    ]
    return in_turns([lambda w=w: nn.functional.linear(x, w) for w in weights])


def torchao_int4(side: int, x: Tensor) -> Run | None:
    """None where torchao is not installed, or has nothing for this."""
    try:
        from torchao.quantization import Int4WeightOnlyConfig, quantize_

        layers = [
            nn.Linear(side, side, bias=False, dtype=x.dtype, device="cuda")
            for _ in range(copies(side**2 // 2))
        ]
        for layer in layers:
            quantize_(layer, Int4WeightOnlyConfig(group_size=128))
        layers[0](x)
    except Exception as error:  # a peer that cannot run is no reason for the others not to
        typer.echo(f"torchao int4: {error}")
        return None
    return in_turns([lambda layer=layer: layer(x) for layer in layers])


def main(
    bits: int = 4, side: int = 4096, rounds: int = 9, out: Path = Path("build/benchmarks/gpu.json")
) -> None:
    if not torch.cuda.is_available():
        raise typer.BadParameter("no GPU here")
    if cuda_kernels() is None:
        raise typer.BadParameter("hashcompile-runtime was built without CUDA: see runtime/README.md")
    speed, found = bandwidth(), []
    for m in ROWS:
        x = {
            dtype: torch.randn(m, side, device="cuda").to(dtype) for dtype in (torch.float16, torch.bfloat16)
        }
        runs: dict[str, Run | None] = {
            "ours": ours(bits, side, x[torch.float16], CudaPath.AUTO),
            "ours, tensor cores": ours(bits, side, x[torch.float16], CudaPath.GEMM),
            "torch fp16": dense(side, x[torch.float16]),
            "torch bf16": dense(side, x[torch.bfloat16]),
            "torchao int4": torchao_int4(side, x[torch.bfloat16]),
        }
        present = {name: run for name, run in runs.items() if run is not None}
        times: dict[str, list[float]] = {name: [] for name in present}
        for run in present.values():
            microseconds(run)
        for _ in range(rounds):
            for name, run in present.items():
                times[name].append(microseconds(run))
        figures = {name: median(each) for name, each in times.items()}
        figures["limit"] = side * side * bits / 8 / speed
        found.append({"rows": m, "microseconds": figures, "rounds": times})
        typer.echo(f"{m:5} rows  " + "  ".join(f"{name} {value:.1f}" for name, value in figures.items()))
    out.parent.mkdir(parents=True, exist_ok=True)
    device = torch.cuda.get_device_name()
    out.write_text(
        json.dumps(
            {"device": device, "bits": bits, "side": side, "bandwidth": speed, "runs": found}, indent=1
        )
    )


if __name__ == "__main__":
    with torch.inference_mode():
        typer.run(main)
