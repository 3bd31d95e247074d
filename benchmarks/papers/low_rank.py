"""Low rank, PCA and randomised multiplication: accuracy, arithmetic and time.

    python benchmarks/papers/low_rank.py [mlp] [lenet300] [lenet5] [resnet20] [vgg] [--only 'by *'] [--strength 0.9]
        [--epochs 1] [--images 10000] [--test 10000] [--runs 200] [--out DIR]

Every layer for which it pays becomes two or three thin ones, of the rank that keeps a share of its outputs' energy (the
strength): by truncated SVD, by PCA of the inputs, and by the SVD that is weighted with them, the last also in each
form of a convolution alone. Or some columns of every product are drawn (the strength is their share).

It is told of the first two that they help large fully-connected networks, and of none that it helps a convolutional
one. Here "helps" means: less arithmetic, and faster in ONNX Runtime for one sample and for many, at no more than half a
point of accuracy.

Tables go to stdout; JSON and curves to `build/benchmarks`. What is there already is not measured again. The data folder
is named by HASHCOMPILE_DATA.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from operator import attrgetter
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script: its packages lie one folder up

from contest.prepared import BUILD

from hashcompile.core.console import show, table
from papers.curves import draw, draw_times
from papers.kept import Kept
from papers.measure import Latency, Point, latencies, run
from papers.subjects import Name, subjects
from papers.tables import accuracies, speeds
from papers.ways import thin_ways

CONNECTED = (Name.mlp, Name.lenet300)  # networks of which low rank and PCA are told to help
SUBJECTS = (Name.mlp, Name.lenet300, Name.lenet5, Name.resnet20, Name.vgg)
ALLOWED = 0.5  # points of accuracy


def main(
    names: Annotated[
        list[Name] | None, typer.Argument(help="Which networks; by default all but resnet56.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Globs over the ways; repeatable.")] = None,
    strength: Annotated[
        list[float] | None, typer.Option(help="Instead of each way's own; repeatable.")
    ] = None,
    epochs: Annotated[float, typer.Option(min=0, help="Of fine-tuning, over `--images`.")] = 0.0,
    images: Annotated[int, typer.Option(min=512, help="Training images for fine-tuning.")] = 10_000,
    test: Annotated[int, typer.Option(min=250, help="Test images.")] = 10_000,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    runs: Annotated[int, typer.Option(min=1, help="Of each file, for latency.")] = 200,
    out: Annotated[Path, typer.Option(help="Folder for JSON, curves and trained networks.")] = BUILD,
) -> None:
    """Measure what is lost and what is saved."""
    torch.set_num_threads(threads)
    verdicts: list[tuple[str, ...]] = []
    for given, whole in subjects(names or SUBJECTS, out / "papers", images, test):
        name = given.name
        ways = [
            way
            for way in thin_ways(any(isinstance(each, nn.Conv2d) for each in given.model.modules()))
            if not only or any(fnmatch(way.name, glob) for glob in only)
        ]
        todo = [(way, each) for way in ways for each in way.among(strength)]
        setting = {"images": images, "test": test, "epochs": epochs, "top1": whole}
        points = run(given, todo, epochs, Kept(out / f"low_rank_{name}.json", setting))
        show(accuracies(points, whole), "")
        draw(out / f"low_rank_{name}.png", given.title, "macs, share left", whole, points, attrgetter("macs"))
        kept = Kept(out / f"low_rank_{name}_latency.json", {"threads": threads, "runs": runs})
        times = latencies(given, todo, out / "papers", threads, runs, kept)
        show(speeds(times), "")
        draw_times(out / f"low_rank_{name}_time.png", given.title, whole, points, times)
        verdicts += [
            (name.value, way.name, told(name, way.name), *verdict(way.name, points, times, whole))
            for way in ways
        ]
    header = (
        "network",
        "way",
        "it is told",
        ">strength",
        ">points",
        ">time left, one sample",
        ">32 samples",
        "",
    )
    show(f"The fastest of each way within {ALLOWED} points:", table(header, verdicts))


def told(name: Name, way: str) -> str:
    """What is published of it."""
    return "helps" if name in CONNECTED and way != "sampled columns" else "does not help"


def verdict(way: str, points: Sequence[Point], times: Sequence[Latency], whole: float) -> tuple[str, ...]:
    """Of the strengths that lose no more than `ALLOWED`, and save arithmetic, the fastest; whether it helps."""
    fit = {each.strength: each.accuracy - whole for each in points if each.way == way and each.macs < 0.99}
    fit = {each: lost for each, lost in fit.items() if lost >= -ALLOWED}
    if not fit:
        return "", "", "", "", "loses too much, or saves nothing"
    left = {each: [t.time for t in times if (t.way, t.strength) == (way, each)] for each in fit}
    best = min(left, key=lambda each: max(left[each]))
    shares = [f"{time:.0%}" for time in left[best]]
    word = "helps" if max(left[best]) < 0.97 else "does not help"
    return f"{best:g}", f"{fit[best]:+.2f}", *shares, word


if __name__ == "__main__":
    typer.run(main)
