"""Deep Compression (arXiv 1510.00149) on MNIST: what a file weighs when weights are pruned, shared and entropy-coded.

    python benchmarks/papers/deep_compression.py [lenet300] [lenet5] [--epochs 20] [--pruning 24] [--out DIR]

Each network is trained here, then goes through `hc.recipes.deep_compression`: pruned while it trains for `--pruning`
epochs, the share rising over the first half of them, and fine-tuned for `TUNING` epochs once its weights are shared.
Errors are those of the loaded file, on all 10,000 test images. The paper counts the bytes of its tensors; here they
stand beside the size of the file, in which the graph and two images to verify exports with lie as well.

Tables go to stdout; JSON, the files and a plot to `build/benchmarks`. Every epoch is kept, and a run goes on where the
last one was stopped. The data folder is named by HASHCOMPILE_DATA.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script: its packages lie one folder up

from contest.prepared import BUILD
from zoo import mnist

import hashcompile as hc
from hashcompile.core.console import show, table
from hashcompile.core.encoded import encoded_weights
from hashcompile.inspector import tensor_sizes
from papers.canvas import begin, save
from papers.kept import Kept, Record, label
from papers.train import top1, train

TUNING, TUNING_RATE, PRUNING_DECAY = 3, 0.002, 2e-4
CALIBRATION = 2048  # training images that tables are fitted on


class Name(StrEnum):
    lenet300 = "lenet300"
    lenet5 = "lenet5"


@dataclass(frozen=True)
class Layer:
    """A row of the paper's tables 2 and 3."""

    kept: float  # share of the weights
    index: float  # bits, Huffman-coded
    gap: float  # bits a kept weight, Huffman-coded
    rate: float  # bytes left of those in float32


@dataclass(frozen=True)
class Network:
    title: str
    make: Callable[[], nn.Module]
    rate: float
    amount: Mapping[str, float]
    bits: Mapping[str, int]
    paper: Sequence[Layer]
    published: tuple[float, float, float, float]  # error and kB of the reference, of the compressed network


NETWORKS = {
    Name.lenet300: Network(
        "LeNet-300-100",
        mnist.lenet300,
        0.1,
        {"1": 0.94, "3": 0.9, "5": 0.7},
        {"*": 3},
        (
            Layer(0.08, 4.4, 3.7, 0.0232),
            Layer(0.09, 4.4, 4.3, 0.0304),
            Layer(0.26, 4.3, 3.2, 0.1270),
        ),
        (1.64, 1070, 1.58, 27),
    ),
    Name.lenet5: Network(
        "LeNet-5",
        mnist.LeNet5,
        0.05,
        {"conv1": 0.5, "conv2": 0.9, "fc1": 0.98, "fc2": 0.85},
        {"conv*": 4, "fc*": 3},
        (
            Layer(0.66, 7.2, 1.5, 0.6745),
            Layer(0.12, 7.2, 3.9, 0.0528),
            Layer(0.08, 4.5, 4.5, 0.0245),
            Layer(0.19, 5.2, 3.7, 0.0613),
        ),
        (0.80, 1720, 0.74, 44),
    ),
}


def main(
    names: Annotated[
        list[Name] | None, typer.Argument(help="Which networks; both, if none is named.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of training, before anything is compressed.")] = 20,
    pruning: Annotated[int, typer.Option(min=1, help="Of training while weights go.")] = 24,
    images: Annotated[int, typer.Option(min=512, help="Training images.")] = 60_000,
    test: Annotated[int, typer.Option(min=250, help="Test images.")] = 10_000,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    out: Annotated[Path, typer.Option(help="Folder for JSON, files, plot and trained networks.")] = BUILD,
) -> None:
    """Compress them, and print the paper's figures beside ours."""
    torch.set_num_threads(threads)
    learn, check = mnist.images("mnist", "train", images), mnist.images("mnist", "test", test)
    found = []
    for name in names or list(Name):
        network = NETWORKS[name]
        shape = {f"amount {glob}": share for glob, share in network.amount.items()}
        shape |= {f"bits {glob}": bits for glob, bits in network.bits.items()}
        setting = {
            "images": images,
            "test": test,
            "epochs": epochs,
            "pruning": pruning,
            "tuning": TUNING,
            **shape,
        }
        kept = Kept(out / f"deep_compression_{name}.json", setting)
        stages = out / "papers" / f"{name}_{label(setting)}"
        measured = kept.once(
            {"network": name}, partial(measure, network, learn, check, epochs, pruning, stages)
        )
        show(f"{network.title}, trained for {epochs} epochs, pruned in {pruning}, fine-tuned in {TUNING}")
        show(layer_table(measured, network), "")
        found.append(measured)
    show(f"test error in % of {len(check.labels)} images; kB of 1,000 bytes")
    show(networks_table(found), "")
    draw(out / "deep_compression.png", found)


def measure(
    network: Network, learn: mnist.Images, check: mnist.Images, epochs: int, pruning: int, keep: Path
) -> Record:
    """Train, compress, write, and look at what was written."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = network.make().to(memory_format=torch.channels_last)
    kept = {
        stage: keep.with_name(f"{keep.name}_{stage}.safetensors") for stage in ("whole", "pruned", "tuned")
    }
    train(model, *learn, epochs=epochs, rate=network.rate, bf16=True, keep=kept["whole"])

    def prune(module: nn.Module, step: Callable[[], None]) -> None:
        train(
            module,
            *learn,
            epochs=pruning,
            rate=network.rate,
            decay=PRUNING_DECAY,
            bf16=True,
            keep=kept["pruned"],
            after=step,
        )

    def fine_tune(module: nn.Module, step: Callable[[], None]) -> None:
        train(module, *learn, epochs=TUNING, rate=TUNING_RATE, decay=0, bf16=True, keep=kept["tuned"])

    compiled = hc.recipes.deep_compression(
        model,
        (learn.inputs[:2],),
        prune,
        steps=max(1, pruning * (len(learn.labels) // 128) // 2),
        amount=network.amount,
        bits=network.bits,
        fine_tune=fine_tune,
        calibration=[(batch,) for batch in learn.inputs[:CALIBRATION].split(64)],
    )
    path = keep.with_suffix(".hc")
    compiled.save(path)
    compiled.save(keep.with_name(f"{keep.name}_packed.hc"), entropy=False)
    report = compiled.report()
    sizes = tensor_sizes(path)
    layers = []
    for name, code in encoded_weights(compiled.graph_module).items():
        stored = {key.removeprefix(f"code.{name}."): size for key, size in sizes.items() if name in key}
        weights, left = code.view.numel, int(code.mask.sum())
        layers.append(
            {
                "layer": name.removesuffix(".weight"),
                "weights": weights,
                "kept": left / weights,
                "bits": code.bits,
                "index": 8 * stored["codes"] / left,
                "gap": 8 * sum(size for part, size in stored.items() if part in PLACES) / left,
                "bytes": sum(stored.values()),
            }
        )
    return {
        "title": network.title,
        "error": 100 - top1(model, *check),
        "compressed_error": 100 - top1(hc.load(path), *check),
        "dense": report.dense_nbytes,
        "packed": report.nbytes,
        "coded": sum(size for key, size in sizes.items() if not key.startswith("sample.")),
        "file": path.stat().st_size,
        "packed_file": keep.with_name(f"{keep.name}_packed.hc").stat().st_size,
        "layers": layers,
        "published": network.published,
    }


PLACES = ("places", "bitmap", "gaps", "entries")


def layer_table(measured: Record, network: Network) -> object:
    rows = []
    for layer, paper in zip(measured["layers"], network.paper, strict=True):
        rows.append(
            (
                layer["layer"],
                f"{layer['weights']:,}",
                f"{layer['kept']:.1%}",
                f"{paper.kept:.0%}",
                str(layer["bits"]),
                f"{layer['index']:.1f}",
                f"{paper.index:.1f}",
                f"{layer['gap']:.1f}",
                f"{paper.gap:.1f}",
                f"{layer['bytes']:,}",
                f"{layer['bytes'] / 4 / layer['weights']:.2%}",
                f"{paper.rate:.2%}",
            )
        )
    header = (
        "layer",
        ">weights",
        ">kept",
        ">paper",
        ">bits",
        ">coded",
        ">paper",
        ">place",
        ">paper",
        ">bytes",
    )
    return table((*header, ">of fp32", ">paper"), rows)


def networks_table(found: Sequence[Record]) -> object:
    rows = []
    for each in found:
        before, dense, after, small = each["published"]
        rows.append(
            (
                each["title"],
                f"{each['error']:.2f} -> {each['compressed_error']:.2f}",
                f"{before:.2f} -> {after:.2f}",
                f"{each['dense'] / 1000:.0f} -> {each['packed'] / 1000:.1f}",
                f"{each['coded'] / 1000:.1f}",
                f"{each['file'] / 1000:.1f}",
                f"{dense:.0f} -> {small:.0f}",
                f"{each['dense'] / each['coded']:.0f}x",
                f"{each['dense'] / each['file']:.0f}x",
                f"{dense / small:.0f}x",
            )
        )
    header = ("network", ">error", ">paper", ">tensors, kB", ">coded", ">file", ">paper", ">tensors", ">file")
    return table((*header, ">paper"), rows)


def draw(path: Path, found: Sequence[Record]) -> None:
    """Where the bytes of each file are, beside the paper's total. Needs matplotlib."""
    canvas, panels = begin(len(found), (5, 4))
    for panel, each in zip(panels, found, strict=True):
        index = sum(layer["index"] * layer["kept"] * layer["weights"] / 8 for layer in each["layers"])
        place = sum(layer["gap"] * layer["kept"] * layer["weights"] / 8 for layer in each["layers"])
        parts = {
            "indices": index,
            "places": place,
            "tables, scales, biases": each["coded"] - index - place,
            "graph, manifest, images": each["file"] - each["coded"],
        }
        below = 0.0
        for part, size in parts.items():
            panel.bar("ours", size / 1000, bottom=below, label=part)
            below += size / 1000
        panel.bar("the paper", each["published"][3], color="0.7")
        panel.set_title(f"{each['title']}, {each['dense'] / 1000:.0f} kB in float32")
        panel.text(0, below, f"error {each['compressed_error']:.2f} %", ha="center", va="bottom")
        panel.text(1, each["published"][3], f"error {each['published'][2]:.2f} %", ha="center", va="bottom")
        panel.margins(y=0.15)
    panels[0].set_ylabel("kB")
    panels[0].legend(fontsize=8)
    save(canvas, path)


if __name__ == "__main__":
    typer.run(main)
