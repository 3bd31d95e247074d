"""One layer at a time: our kernels against every peer, and against what the machine can do.

    python benchmarks/kernels.py [--quick] [--threads 1 --threads 2] [--only 'linear*'] [--peers 'ort*'] [--out DIR]

README.md beside this file says what every figure means.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from contest import own_kernels
from contest.limits import Machine
from contest.peer import CALL, Peer, stock
from contest.prepared import BUILD
from contest.run import Run
from contest.standings import Settings
from contest.subject import Recipe, Subject
from peers.ours import PEER as OURS
from peers.registry import chosen
from zoo import single

from hashcompile.core.console import show

LINEARS = ((384, 384), (1536, 384), (1024, 1024), (4096, 4096), (11008, 4096))  # N x K
TARGETS = {1: 2.0, 8: 2.0, 128: 1.4}  # M: times as fast as the fastest peer
OWN = "own-kernels"  # for --only


class Conv(NamedTuple):
    """Arguments of single.conv, and the side of the image."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    groups: int
    side: int


CONVS = {
    "stem 7x7/2": Conv(3, 64, 7, 2, 1, 224),
    "3x3 56": Conv(64, 64, 3, 1, 1, 56),
    "3x3 14": Conv(256, 256, 3, 1, 1, 14),
    "1x1 56": Conv(256, 64, 1, 1, 1, 56),
    "depthwise 3x3 56": Conv(144, 144, 3, 1, 144, 56),
}


def linear(N: int, K: int) -> Subject:
    generator = torch.Generator().manual_seed(0)
    cases = {f"M={m}": {"input": torch.randn(m, K, generator=generator)} for m in TARGETS}
    dynamic = {"input": {0: torch.export.Dim("M")}}
    return Subject(f"linear {N} x {K}", Recipe("zoo.single", "linear", (N, K)), cases, dynamic)


def convolution(name: str, conv: Conv) -> Subject:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, conv.inputs, conv.side, conv.side, generator=generator)
    cases = {f"batch {n}": {"input": images[:n]} for n in (1, 2)}
    recipe = Recipe("zoo.single", "conv", conv[:5])
    dynamic = {"input": {0: torch.export.Dim("batch")}}
    return Subject(f"conv {name}", recipe, cases, dynamic, kind="convolution")


def linear_peers(peers: list[Peer], N: int, K: int) -> list[Peer]:
    """Ours made of random codes, and beside all of them a call that computes nothing."""

    def ours(subject: Subject, folder: Path) -> list[str]:
        single.write_codebook_linear(folder / "model.onnx", N, K)
        return ["model.onnx"]

    def empty(subject: Subject, folder: Path) -> list[str]:
        single.write_empty(folder / "model.onnx")
        return ["model.onnx"]

    call = stock(CALL, "a model that computes nothing", empty)
    return [replace(OURS, prepare=ours), *(peer for peer in peers if peer.name != OURS.name), call]


def subjects(peers: list[Peer], quick: bool) -> Iterator[tuple[Subject, list[Peer], int, dict[str, float]]]:
    """(subject, its peers, bytes of our weights, targets)."""
    targets = {f"M={m}": ratio for m, ratio in TARGETS.items()}
    for N, K in LINEARS[::2][:2] if quick else LINEARS:
        yield linear(N, K), linear_peers(peers, N, K), N * K // 2, targets
    for name, conv in list(CONVS.items())[1:2] if quick else CONVS.items():
        weights = conv.outputs * conv.inputs // conv.groups * conv.kernel**2
        yield convolution(name, conv), peers, weights // 2, {}


def main(
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Repeatable; 1 and 2 by default.")] = None,
    only: Annotated[str, typer.Option(help=f"Glob over subjects: 'linear*', 'conv*', {OWN!r}.")] = "*",
    peers: Annotated[list[str] | None, typer.Option(help="Glob over peers; repeatable.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every contender on every case.")] = 3,
    turn: Annotated[float, typer.Option(min=0.001, help="Seconds of a turn.")] = 0.2,
    quick: Annotated[
        bool, typer.Option("--quick", help="Three subjects, short turns: to try it out.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for kernels.json and kernels.png.")] = BUILD,
) -> None:
    """Measure single layers: ours against every peer, medians of interleaved turns."""
    settings = Settings(tuple(threads or (1, 2)), 2 if quick else rounds, 0.05 if quick else turn)
    run = Run(settings, chosen(peers or ()), Machine(BUILD))
    own: list[own_kernels.KernelTime] = []
    try:
        for subject, contenders, weight_bytes, targets in subjects(list(run.peers), quick):
            if fnmatch(subject.name, only):
                run.peers = contenders
                run.measure(subject, weight_bytes, targets)
        if fnmatch(OWN, only):
            own = own_kernels.measure(run.machine, 0.01 if quick else 0.1)
    finally:  # what was measured before an interrupt is worth reading
        if own:
            show(own_kernels.as_table(own), "")
        run.tell()
        run.write(out, "kernels", kernels=[asdict(kernel) for kernel in own])


if __name__ == "__main__":
    typer.run(main)
