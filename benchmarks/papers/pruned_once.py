"""Weights that go at once, with no training afterwards: accuracy by what decides, and by how many go.

    python benchmarks/papers/pruned_once.py [lenet300] [resnet20] [--images 1024] [--test 10000] [--out DIR]

Magnitude without data, magnitude with kept weights corrected, Wanda (arXiv 2306.11695) and SparseGPT (arXiv
2301.00774), at shares of every layer and at patterns N:M; the first `--images` training images calibrate.

The last two were published with language models, whose perplexities do not compare with what these networks lose; what
compares is their order, which the plot shows.

A table goes to stdout; JSON and a plot to `build/benchmarks`. What was measured is not measured again. The data
folder is named by HASHCOMPILE_DATA.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script: its packages lie one folder up

from contest.prepared import BUILD

import hashcompile as hc
from hashcompile.core.console import progress, show, table
from papers.canvas import begin, save
from papers.kept import Kept, Record
from papers.subjects import Name, Subject, subjects
from papers.train import top1

SIZES: dict[str, dict[str, Any]] = {
    **{f"{share:.0%}": {"amount": share} for share in (0.5, 0.7, 0.8, 0.9)},
    **{pattern: {"pattern": pattern} for pattern in ("2:4", "1:4")},
}
WAYS: dict[str, dict[str, Any]] = {
    "magnitude": {},
    "corrected": {"correction": True},
    "Wanda": {"importance": "wanda"},
    "SparseGPT": {"importance": "sparsegpt"},
}


def accuracy(given: Subject, size: str, way: str, images: int) -> Record:
    data = given.calibration(images)
    method = hc.Sparse(**SIZES[size], **WAYS[way])
    compiled = hc.compile(given.model, (data[0][0][:2],), method, data if WAYS[way] else None, progress=False)
    return {"top1": top1(compiled, *given.test)}


def main(
    names: Annotated[
        list[Name] | None, typer.Argument(help="Which networks; lenet300, if none is named.")
    ] = None,
    images: Annotated[int, typer.Option(min=64, help="Training images that calibrate.")] = 1024,
    test: Annotated[int, typer.Option(min=250, help="Test images.")] = 10_000,
    out: Annotated[Path, typer.Option(help="Folder for JSON and trained networks.")] = BUILD,
) -> None:
    """Print a table for each network."""
    torch.set_num_threads(1)
    for given, whole in subjects(names or [Name.lenet300], out / "papers", images, test):
        kept = Kept(out / f"pruned_once_{given.name}.json", {"images": images, "test": test, "top1": whole})
        rows = []
        with progress(given.name, len(SIZES) * len(WAYS)) as bar:
            for size in SIZES:
                rows.append([size])
                for way in WAYS:
                    trial = partial(accuracy, given, size, way, images)
                    rows[-1].append(f"{kept.once({'size': size, 'way': way}, trial)['top1']:.2f}")
                    bar.advance()
        show(table(("zeros", *(f">{way}" for way in WAYS)), rows))
        draw(out / f"pruned_once_{given.name}.png", given.title, whole, kept)


def draw(path: Path, title: str, whole: float, kept: Kept) -> None:
    """Accuracy against the share that went, and beside it that of the patterns. Needs matplotlib."""
    canvas, panels = begin(2, sharey=True)
    for way in WAYS:
        for panel, patterns in zip(panels, (False, True), strict=True):
            sizes = [size for size in SIZES if (":" in size) is patterns]
            found = [kept.once({"size": size, "way": way}, dict)["top1"] for size in sizes]
            panel.plot(sizes, found, "o-", markersize=4, label=way)
    for panel in panels:
        panel.axhline(whole, color="0.5", linewidth=0.8)
    panels[0].set(xlabel="zeros", ylabel="top-1, %", title=title)
    panels[1].set(xlabel="kept : of")
    panels[0].legend(fontsize=8)
    save(canvas, path)


if __name__ == "__main__":
    typer.run(main)
