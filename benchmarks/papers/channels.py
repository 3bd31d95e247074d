"""Pruning, merging and interpolation of channels: accuracy against FLOPs and parameters, and latency beside them.

    python benchmarks/papers/channels.py [resnet20] [resnet56] [lenet5] [lenet300] [vgg]
        [--part methods] [--part weights] [--part rounds] [--part latency] [--only 'l2*'] [--strength 0.3]
        [--epochs 1] [--rate 0.01] [--taught] [--images 10000] [--test 2000] [--out DIR]

- methods: every method and importance at several strengths, before and after a short fine-tuning (`--epochs 0`: none).
- weights: single weights beside whole units, 0 to 95 % of each layer, and the PQ index of what is left.
- rounds: five of `amount="auto"`, by each rule, with fine-tuning in between, and what the rule said in each.
- latency: ONNX Runtime as it comes, whole and reduced network in turns, beside the multiply-accumulates saved.

Tables go to stdout; JSON and curves to `build/benchmarks`. What is there already is not measured again, and training
goes on where it was stopped, fine-tuning too. The data folder is named by HASHCOMPILE_DATA.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from fnmatch import fnmatch
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Annotated

import torch
import typer

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script: its packages lie one folder up

from contest.prepared import BUILD

import hashcompile as hc
from hashcompile.core.console import progress, show
from papers.curves import draw
from papers.kept import Kept
from papers.measure import Point, latencies, measured, point, run, weights_cut
from papers.rounds import rounds, verdicts
from papers.subjects import Name, Subject, subjects
from papers.tables import accuracies, speeds
from papers.ways import RULES, Way, ways

SUBJECTS = (Name.lenet300, Name.lenet5, Name.resnet20, Name.resnet56, Name.vgg)
PUBLISHED = {
    Name.resnet56: "it is told of ResNet-56, fine-tuned: 93.5 % whole, 93.8 % at half of the multiplications",
    Name.vgg: "it is told of VGG-16, interpolated and fine-tuned: 0.02 points gained at 49 % of the multiplications",
}
ROUNDS = 5
SPARSITIES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95)


class Part(StrEnum):
    methods = "methods"
    weights = "weights"
    rounds = "rounds"
    latency = "latency"


def main(
    names: Annotated[list[Name] | None, typer.Argument(help="Which networks; all, if none is named.")] = None,
    part: Annotated[list[Part] | None, typer.Option(help="Which parts; repeatable, all by default.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Globs over the ways; repeatable.")] = None,
    strength: Annotated[
        list[float] | None, typer.Option(help="Instead of each way's own; repeatable.")
    ] = None,
    epochs: Annotated[float, typer.Option(min=0, help="Of fine-tuning, over `--images`.")] = 1.0,
    rate: Annotated[
        float | None, typer.Option(min=0, help="Of fine-tuning, at its start; each network's own by default.")
    ] = None,
    taught: Annotated[
        bool, typer.Option("--taught", help="Fine-tune to the whole network's outputs instead of labels.")
    ] = False,
    images: Annotated[int, typer.Option(min=512, help="Training images for fine-tuning.")] = 10_000,
    test: Annotated[int, typer.Option(min=250, help="Test images.")] = 2_000,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    runs: Annotated[int, typer.Option(min=1, help="Of each file, for latency.")] = 200,
    out: Annotated[Path, typer.Option(help="Folder for JSON, curves and trained networks.")] = BUILD,
) -> None:
    """Measure what is lost and what is saved."""
    torch.set_num_threads(threads)
    chosen = [way for way in ways() if not only or any(fnmatch(way.name, glob) for glob in only)]
    parts = part or list(Part)
    for given, whole in subjects(names or SUBJECTS, out / "papers", images, test):
        name = given.name
        given = given if rate is None else replace(given, rate=rate)
        setting = {
            "images": images,
            "test": test,
            "epochs": epochs,
            "rate": given.rate,
            "threads": threads,
            "top1": whole,
        }
        if Part.methods in parts:
            kept = Kept(out / f"channels_{name}_methods.json", setting | {"taught": taught})
            todo = [(way, each) for way in chosen for each in way.among(strength)]
            points = run(given, todo, epochs, kept, taught)
            show(accuracies(points, whole), PUBLISHED.get(name, ""), "")
            for axis in ("macs", "parameters"):
                path = out / f"channels_{name}_{axis}.png"
                draw(path, given.title, f"{axis}, share left", whole, points, attrgetter(axis))
        if Part.weights in parts:
            kept = Kept(out / f"channels_{name}_weights.json", setting)
            points = beside(given, strength or SPARSITIES, epochs, kept)
            show(accuracies(points, whole, indices=True), "")
            path = out / f"channels_{name}_weights.png"
            draw(path, given.title, "share removed", whole, points, lambda p: p.strength, indices=True)
        if Part.rounds in parts:
            kept = Kept(out / f"channels_{name}_rounds.json", setting)
            for rule in RULES:
                key = {"rule": rule}
                trial = partial(rounds, given, rule, ROUNDS, epochs, kept.training(key))
                told = kept.once(key, trial)
                show(rule, verdicts(told["rounds"]), "")
        if Part.latency in parts:
            raced = [(way, each) for way in ways() if way.name == "l2" for each in strength or (0.3, 0.5)]
            raced += [(Way("l2, by 8", lambda amount: hc.PruneChannels(amount, round_to=8)), 0.5)]
            kept = Kept(out / f"channels_{name}_latency.json", {"threads": threads, "runs": runs})
            show(speeds(latencies(given, raced, out / "papers", threads, runs, kept)), "")


def beside(given: Subject, shares: Sequence[float], epochs: float, kept: Kept) -> list[Point]:
    """Weights and units at the same shares of each layer."""
    units = Way("units", lambda share: hc.PruneChannels(share))
    with progress(f"{given.name}, weights beside units", 2 * len(shares)) as bar:
        found = []
        for share in shares:
            found.append(measured(kept, "weights", share, partial(weights_cut, given, share, epochs)))
            bar.advance()
            found.append(measured(kept, units.name, share, partial(point, given, units, share, epochs)))
            bar.advance()
    return found


if __name__ == "__main__":
    typer.run(main)
