"""How many allowed weights a network needs, and what learning their assignments is worth: ResNet-20 and -34, CIFAR-10.

    python benchmarks/papers/learnt_codebooks.py [resnet20] [resnet34] [--weights 2] [--weights 4] [--only 'soft']
        [--epochs 1] [--taught] [--images 10000] [--test 2000] [--schedule 3] [--out DIR]

Each number of allowed weights, 2 to 64, in each of these ways:

- k-means: the weights alone.
- k-means, tuned: then tables, scales, norms and biases are trained with the assignments as they are.
- fitted: k-means, then error feedback on calibration data; where the others begin.
- tables: fitted; then the same is trained.
- straight-through, soft: fitted; then assignments are trained too.

All but two train in the same way, on the same images, for as many steps. Accuracy is that of the exported file on
our runtime, in int8 arithmetic; sizes are those of the files. ResNet-34 (3 x 3 stem, no pooling in front, 64 to 512
channels) is trained here for `--schedule` epochs of all images, each kept: 100 and more for its full accuracy, for
which one wants a GPU. It is used where there is one.

In print: learnt ternary weights take ResNet-20 from 91.77 to 91.13 (Zhu et al. 2017, arXiv 1612.01064). Differentiable
k-means is measured on ImageNet, where ResNet-50 has 74.5 in 3.32 MB (Cho et al. 2022, arXiv 2108.12659), and so are the
curves over bits of LQ-Nets: of other networks, so that how they fall is what stands beside ours.

A table goes to stdout; JSON and a plot to `build/benchmarks`. What was measured is not measured again, and training
goes on where it was stopped. The data folder is named by HASHCOMPILE_DATA.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from enum import StrEnum
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script: its packages lie one folder up

from contest.prepared import BUILD
from zoo import cifar
from zoo.data import MissingDataError

import hashcompile as hc
import hashcompile_runtime as hcrt
from hashcompile.core.console import format_bytes, progress, show, table
from papers.canvas import begin, save
from papers.kept import Kept, Record
from papers.train import top1, train

RATE = 0.01  # of every way that trains
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PUBLISHED = {  # top-1 in percent, by allowed weights; activations are float32
    # Zhang et al. 2018, arXiv 1807.10029
    "LQ-Nets, ResNet-18, ImageNet": {4: 68.0, 8: 69.3, 16: 70.0},
    "LQ-Nets, ResNet-50, ImageNet": {4: 75.1, 16: 76.4},
}
REFERENCE = 16  # allowed weights that curves are compared at
ENOUGH = 0.5  # points of accuracy: fewer allowed weights are enough where more of them gain no more than this


class Name(StrEnum):
    resnet20 = "resnet20"
    resnet34 = "resnet34"


class Way(StrEnum):
    kmeans = "k-means"
    tuned = "k-means, tuned"
    fitted = "fitted"
    tables = "tables"
    straight = "straight-through"
    soft = "soft"


Data = tuple[Tensor, Tensor]  # images and labels


def main(
    names: Annotated[
        list[Name] | None, typer.Argument(help="Which networks; both, if none is named.")
    ] = None,
    weights: Annotated[
        list[int] | None, typer.Option(help="Allowed weights, a power of 2; repeatable, 2 to 64 by default.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Globs over the ways; repeatable.")] = None,
    epochs: Annotated[float, typer.Option(min=0.01, help="Of training codes, over `--images`.")] = 1.0,
    taught: Annotated[
        bool, typer.Option("--taught", help="Codes learn the whole network's outputs instead of labels.")
    ] = False,
    images: Annotated[int, typer.Option(min=512, help="Training images for codes.")] = 50_000,
    test: Annotated[int, typer.Option(min=250, help="Test images.")] = 2_000,
    calibration: Annotated[int, typer.Option(min=64, help="Training images that calibrate.")] = 512,
    schedule: Annotated[int, typer.Option(min=1, help="Epochs in which ResNet-34 is trained first.")] = 3,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    out: Annotated[Path, typer.Option(help="Folder for JSON, plots and trained networks.")] = BUILD,
) -> None:
    """Train and measure, and say how many allowed weights are enough."""
    torch.set_num_threads(threads)
    for name in names or list(Name):
        try:
            model = network(name, out / "papers", schedule)
            learn, check = shuffled(cifar.images("train", images)), cifar.images("test", test)
        except MissingDataError as error:
            show(f"skipped {name}: {error}")
            continue
        whole = top1(model, *check)
        setting = {
            "images": images,
            "test": test,
            "epochs": epochs,
            "top1": whole,
            "taught": taught,
            "calibration": calibration,
        }
        kept = Kept(out / f"learnt_codebooks_{name}.json", setting)
        counts = sorted(weights or [2**bits for bits in range(1, 7)])
        ways = [way for way in Way if not only or any(fnmatch(way, glob) for glob in only)]
        found = []
        with progress(name, len(counts) * len(ways)) as bar:
            for count in counts:
                for way in ways:
                    key = {"way": way.value, "weights": count}
                    trial = partial(
                        measure,
                        model,
                        way,
                        count,
                        learn,
                        check,
                        epochs,
                        calibration,
                        taught,
                        kept.training(key),
                    )
                    found.append(kept.once(key, trial))
                    bar.advance()
        trained = "" if name is Name.resnet20 else f", itself trained for {schedule} epochs"
        show(
            f"{name}{trained}: {whole:.2f} % of {test} test images; codes trained for {epochs:g} epochs of {images}"
        )
        show(accuracies(found), "")
        show("points of top-1 against 16 allowed weights, beside papers that learn theirs on other networks")
        show(steps_down(found), "")
        for way in ways:
            show(f"{way}: {knee([each for each in found if each['way'] == way])} allowed weights are enough")
        draw(out / f"learnt_codebooks_{name}.png", name, whole, found)


def network(name: Name, folder: Path, schedule: int) -> nn.Module:
    if name is Name.resnet20:
        return cifar.load(20)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = cifar.resnet34()
    keep = folder / f"resnet34_{schedule}.safetensors"
    inputs, labels = (each.to(DEVICE) for each in cifar.images("train"))
    model.to(DEVICE)
    train(model, inputs, labels, epochs=schedule, rate=0.1, keep=keep, moved=True)
    return model.cpu()


def shuffled(images: Data) -> Data:
    order = torch.randperm(len(images[1]), generator=torch.Generator().manual_seed(1))
    return images[0][order], images[1][order]


def measure(
    model: nn.Module,
    way: Way,
    count: int,
    learn: Data,
    check: Data,
    epochs: float,
    images: int = 512,
    taught: bool = False,
    keep: Path | None = None,
) -> Record:
    """Compress, train and export; top-1 in percent, and bytes. keep: a file from which training goes on."""
    bits = count.bit_length() - 1
    trains = way not in (Way.kmeans, Way.fitted)
    calibration = [(batch,) for batch in learn[0][:images].split(64)]
    compiled = hc.compile(
        model,
        (learn[0][:2],),
        hc.Codebook(bits, learn=trains),
        None if way in (Way.kmeans, Way.tuned) else calibration,
        progress=False,
    )
    if trains:
        graph = compiled.graph_module.to(DEVICE)
        by = "soft" if way is Way.soft else "straight-through"
        hold = 1.0 if way in (Way.tuned, Way.tables) else 0.2
        steps = max(1, round(epochs * len(learn[1]) / 128))
        training = hc.CodebookTraining(graph, steps=steps, by=by, hold=hold)
        inputs, labels = (each.to(DEVICE) for each in learn)
        teacher = copy.deepcopy(model).to(DEVICE) if taught else None
        train(
            graph,
            inputs,
            labels,
            epochs=epochs,
            rate=RATE,
            keep=keep,
            moved=True,
            schedule=training,
            teacher=teacher,
        )
        graph.cpu()
        training.freeze()
    compiled = compiled.calibrate(calibration)
    with TemporaryDirectory() as folder:
        onnx, artifact = Path(folder, "model.onnx"), Path(folder, "model.hc")
        compiled.export_onnx(onnx, show=False)
        compiled.save(artifact)
        session = hcrt.session(onnx, threads=torch.get_num_threads())
        given = session.get_inputs()[0].name

        def answer(images: Tensor) -> Tensor:
            return torch.from_numpy(session.run(None, {given: images.numpy()})[0])

        return {"top1": top1(answer, *check), "onnx": onnx.stat().st_size, "hc": artifact.stat().st_size}


def knee(found: Sequence[Record]) -> int:
    """The fewest allowed weights from which on more gain no more than `ENOUGH` points."""
    best = max(each["top1"] for each in found)
    return min(each["weights"] for each in found if each["top1"] >= best - ENOUGH)


def accuracies(found: Sequence[Record]) -> object:
    """A row for each number of allowed weights."""
    ways = list(dict.fromkeys(each["way"] for each in found))
    rows = []
    for count in dict.fromkeys(each["weights"] for each in found):
        mine = {each["way"]: each for each in found if each["weights"] == count}
        sizes = [format_bytes(max(each[file] for each in mine.values())) for file in ("onnx", "hc")]
        rows.append(
            (str(count), *(f"{mine[way]['top1']:.2f}" if way in mine else "" for way in ways), *sizes)
        )
    return table((">allowed weights", *(f">{way}" for way in ways), ">.onnx", ">.hc"), rows)


def steps_down(found: Sequence[Record]) -> object:
    """What fewer allowed weights cost, and what more gain, here and in print: that compares across networks."""
    ours = {
        way: {e["weights"]: e["top1"] for e in found if e["way"] == way} for way in (e["way"] for e in found)
    }
    curves = {way: curve for way, curve in (ours | PUBLISHED).items() if REFERENCE in curve}
    counts = sorted({count for curve in curves.values() for count in curve} - {REFERENCE})
    rows = [
        (way, *(f"{curve[n] - curve[REFERENCE]:+.2f}" if n in curve else "" for n in counts))
        for way, curve in curves.items()
    ]
    return table(("", *(f">{count}" for count in counts)), rows)


def draw(path: Path, name: str, whole: float, found: Sequence[Record]) -> None:
    """Accuracy against the number of allowed weights, and against bytes. Needs matplotlib."""
    canvas, panels = begin(2, sharey=True)
    for panel, axis in zip(panels, ("weights", "onnx"), strict=True):
        for way in dict.fromkeys(each["way"] for each in found):
            mine = sorted((each[axis], each["top1"]) for each in found if each["way"] == way)
            panel.plot(*zip(*mine, strict=True), "o-", markersize=4, label=way)
        panel.axhline(whole, color="0.5", linewidth=0.8)
        panel.set_xscale("log", base=2 if axis == "weights" else 10)
    panels[0].set(xlabel="allowed weights", ylabel="top-1, %", title=name)
    panels[0].xaxis.set_major_formatter("{x:g}")
    panels[1].set(xlabel="bytes of the .onnx file")
    panels[0].legend(fontsize=8)
    save(canvas, path)


if __name__ == "__main__":
    typer.run(main)
