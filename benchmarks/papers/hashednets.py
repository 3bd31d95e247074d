"""HashedNets (arXiv 1504.04788) on MNIST: hashed weights beside other networks of as many parameters.

    python benchmarks/papers/hashednets.py [--layers 3] [--ratio 8] [--only 'hashed*'] [--epochs 20] [--out DIR]
    python benchmarks/papers/hashednets.py --speed

Networks of 1,000 hidden units in one layer ("3-layer", as the paper counts) or in three ("5-layer"), each with 1/8 or
1/64 of the weights of the dense one, all trained from the start in the same way:

- random edge removal: that share of the weights, drawn once, trains; the others are zero.
- low rank: every layer is two, of one rank in all of them.
- equivalent net: fewer hidden units.
- hashed, by weight and by tile: `hc.Hashed(ratio, start="sample")`; and all layers from one pool of values.

Biases are beside that, and not compressed. The paper's own training is not described to the last detail; what is
compared with it is the order of the ways, and how far apart they are.

`--speed` trains nothing: it runs single layers of tiles beside their dense weights in ONNX Runtime fp32, in turns.

A table goes to stdout; JSON and a plot to `build/benchmarks`. Every epoch is kept, and a run goes on where the last one
was stopped. The data folder is named by HASHCOMPILE_DATA.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script: its packages lie one folder up

from contest.prepared import BUILD
from zoo import mnist
from zoo.artifacts import export_fp32

import hashcompile as hc
from hashcompile.bench import Settings, bench, contenders
from hashcompile.bench_inputs import Sizes
from hashcompile.core.console import format_bytes, progress, show, table
from papers.canvas import begin, save
from papers.kept import Kept, Record
from papers.train import top1, train

HIDDEN, RATE, DROPOUT = 1000, 0.05, 0.2
PUBLISHED = {  # test error in percent, by (way, layers, 1 / ratio)
    ("random edge removal", 3, 8): 2.19,
    ("low rank", 3, 8): 1.89,
    ("equivalent net", 3, 8): 1.69,
    ("hashed", 3, 8): 1.45,
    ("random edge removal", 3, 64): 15.03,
    ("low rank", 3, 64): 28.99,
    ("equivalent net", 3, 64): 6.28,
    ("hashed", 3, 64): 2.79,
    ("hashed", 5, 8): 1.22,
    ("hashed", 5, 64): 1.99,
}
LAYERS = (
    (4096, 256),
    (4096, 64),
    (4096, 16),
    (2048, 64),
    (1024, 64),
)  # width, 1 / ratio: of those that are timed
BATCHES, RUNS = (1, 8, 64), 100  # rows of activations, and runs of each
Masks = dict[str, Tensor]
Built = tuple[nn.Module, Masks]  # a network to train, and which entries of its parameters stay zero


def widths(layers: int, hidden: int = HIDDEN) -> list[int]:
    """Of a network with as many layers of units, the input and the output among them."""
    return [784, *[hidden] * (layers - 2), 10]


def network(sizes: Sequence[int], layer: Callable[[int, int], nn.Module] = nn.Linear) -> nn.Sequential:
    modules: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in itertools.pairwise(sizes):
        modules += [layer(inputs, outputs), nn.ReLU(), nn.Dropout(DROPOUT)]
    return nn.Sequential(*modules[:-2])


def weights(model: nn.Module) -> int:
    """Numbers in its matrices, and in what stands for them: all but biases."""
    return sum(p.numel() for name, p in model.named_parameters() if not name.endswith("bias"))


def dense(layers: int, share: float) -> Built:
    return network(widths(layers)), {}


def random_edges(layers: int, share: float) -> Built:
    model = network(widths(layers))
    masks = {}
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            masks[name] = (torch.rand(weight.shape) < share).float()
            # the inputs that are left make outputs as large as all of them did
            weight.data *= masks[name] / share**0.5
    return model, masks


def low_rank(layers: int, share: float) -> Built:
    """One rank for all layers: in proportion to its weights, the last would have but one."""
    sizes = widths(layers)

    def cost(rank: int) -> int:
        return sum(min(rank, b) * (a + b) for a, b in itertools.pairwise(sizes))

    rank = min(range(1, HIDDEN), key=lambda r: abs(cost(r) - share * products(sizes)))

    def two(inputs: int, outputs: int) -> nn.Module:
        """Of a dense layer the largest singular values, each shared out evenly: neither factor is steeper to train."""
        whole, least = nn.Linear(inputs, outputs), min(rank, outputs)
        down, up = nn.Linear(inputs, least, bias=False), nn.Linear(least, outputs)
        left, size, right = torch.linalg.svd(whole.weight.data, full_matrices=False)
        up.weight.data.copy_(left[:, :least] * size[:least].sqrt())
        down.weight.data.copy_(size[:least, None].sqrt() * right[:least])
        return nn.Sequential(down, up)

    return network(sizes, two), {}


def equivalent(layers: int, share: float) -> Built:
    wanted = share * weights(network(widths(layers)))
    hidden = min(range(1, HIDDEN), key=lambda h: abs(products(widths(layers, h)) - wanted))
    return network(widths(layers, hidden)), {}


def products(sizes: Sequence[int]) -> int:
    return sum(a * b for a, b in itertools.pairwise(sizes))


def hashed(layers: int, share: float, tile: bool = False, pool: str | None = None) -> Built:
    model = network(widths(layers))
    method = hc.Hashed(share, tile=tile, start="sample", pool=pool)
    compiled = hc.compile(model, (torch.zeros(2, 1, 28, 28),), method=method, compute="float", progress=False)
    return compiled.graph_module, {}


WAYS: dict[str, Callable[[int, float], Built]] = {
    "dense": dense,
    "random edge removal": random_edges,
    "low rank": low_rank,
    "equivalent net": equivalent,
    "hashed": hashed,
    "hashed, tiles": partial(hashed, tile=True),
    "hashed, one pool": partial(hashed, pool="all"),
}


def main(
    layers: Annotated[list[int] | None, typer.Option(help="3 or 5; repeatable, both by default.")] = None,
    ratio: Annotated[
        list[int] | None, typer.Option(help="Weights for each number that is stored; repeatable.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Globs over the ways; repeatable.")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 20,
    rate: Annotated[float, typer.Option(min=0, help="Of learning, at the start.")] = RATE,
    images: Annotated[int, typer.Option(min=512, help="Training images.")] = 60_000,
    test: Annotated[int, typer.Option(min=250, help="Test images.")] = 10_000,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    speed: Annotated[
        bool, typer.Option("--speed", help="Time single layers of tiles, and train nothing.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for JSON, plot and training.")] = BUILD,
) -> None:
    """Train them all, and print the paper's figures beside ours."""
    torch.set_num_threads(threads)
    if speed:
        kept = Kept(out / "hashednets_speed.json", {"threads": threads, "runs": RUNS})
        times = [
            kept.once(
                {"size": size, "ratio": each}, partial(layer_times, size, each, out / "papers", threads)
            )
            for size, each in LAYERS
        ]
        show("layers of tiles on our kernel beside dense fp32 weights in ONNX Runtime")
        show(speeds(times), "")
        draw_speeds(out / "hashednets_speed.png", times)
        return
    learn, check = mnist.images("mnist", "train", images), mnist.images("mnist", "test", test)
    setting = {"images": images, "test": test, "epochs": epochs, "rate": rate, "dropout": DROPOUT}
    kept = Kept(out / "hashednets.json", setting)
    names = [name for name in WAYS if not only or any(fnmatch(name, glob) for glob in only)]
    todo = [
        (name, depth, 1 if name == "dense" else part)
        for depth in layers or (3, 5)
        for name in names
        for part in ((1,) if name == "dense" else ratio or (8, 64))
    ]
    found = []
    with progress("HashedNets", len(todo)) as bar:
        for name, depth, part in todo:
            key = {"way": name, "layers": depth, "ratio": part}
            trial = partial(measure, *key.values(), learn, check, epochs, rate, kept.training(key))
            found.append(kept.once(key, trial))
            bar.advance()
    show(f"MNIST, {len(learn.labels)} images, {epochs} epochs; test error in % of {len(check.labels)} images")
    show(errors(found), "")
    draw(out / "hashednets.png", found)


def layer_times(size: int, ratio: int, folder: Path, threads: int) -> Record:
    """Of a layer of random weights, at several numbers of rows: both files in turns."""
    folder.mkdir(parents=True, exist_ok=True)
    dense_file, tiles_file = folder / "layer_dense.onnx", folder / "layer_tiles.onnx"
    torch.manual_seed(0)
    layer, example = nn.Linear(size, size), torch.zeros(2, size)
    export_fp32(layer, (example,), ({0: torch.export.Dim("batch")},), dense_file)
    method = hc.Hashed(1 / ratio, tile=True, start="sample")
    made = hc.compile(layer, (example,), method, compute="float", progress=False)
    made.export_onnx(tiles_file, show=False)
    batches = []
    for batch in BATCHES:
        settings = Settings(threads, RUNS, Sizes(batch))
        whole, mine = bench(contenders([dense_file, tiles_file]), settings, False)
        batches.append({"batch": batch, "dense_ms": whole.p50_ms, "tiles_ms": mine.p50_ms})
    return {"runs_as": runs_as(made), "batches": batches}


def speeds(times: Sequence[Record]) -> object:
    rows = []
    for each in times:
        size, ratio = each["size"], each["ratio"]
        layer = (f"{size} x {size}", f"1/{ratio}", format_bytes(4 * size * size // ratio))
        for one in each["batches"]:
            dense_ms, tiles_ms = one["dense_ms"], one["tiles_ms"]
            cells = (f"{dense_ms:.3f}", f"{tiles_ms:.3f}", f"{dense_ms / tiles_ms:.2f}x", each["runs_as"])
            rows.append((*layer, str(one["batch"]), *cells))
    heads = ("layer", "ratio", ">pool", ">M", ">dense, ms", ">tiles, ms", ">as fast", "runs as")
    return table(heads, rows)


def draw_speeds(path: Path, times: Sequence[Record]) -> None:
    """How much faster than dense, against the rows of activations; a curve for each layer. Needs matplotlib."""
    canvas, (panel,) = begin(1)
    for each in times:
        points = [(one["batch"], one["dense_ms"] / one["tiles_ms"]) for one in each["batches"]]
        panel.plot(
            *zip(*points, strict=True), "o-", label=f"{each['size']}, 1/{each['ratio']}: {each['runs_as']}"
        )
    panel.axhline(1, color="0.5", linewidth=0.8)
    panel.set(xscale="log", xlabel="rows of activations", ylabel="times as fast as dense fp32")
    panel.set_xticks(BATCHES, [str(batch) for batch in BATCHES])
    panel.set_xticks([], minor=True)
    panel.legend(fontsize=8)
    save(canvas, path)


def runs_as(made: hc.CompiledModel) -> str:
    (line,) = made.report()
    return line.kernel or "dense"


def measure(
    way: str,
    layers: int,
    ratio: int,
    learn: tuple[Tensor, Tensor],
    check: tuple[Tensor, Tensor],
    epochs: int,
    rate: float,
    keep: Path | None,
) -> Record:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, masks = WAYS[way](layers, 1 / ratio)
        train(model, *learn, epochs=epochs, rate=rate, masks=masks, keep=keep)
    stored = weights(model) - sum(int((mask == 0).sum()) for mask in masks.values())
    return {"weights": stored, "error": 100 - top1(model, *check)}


def errors(found: Sequence[Record]) -> object:
    rows = []
    for each in found:
        paper = PUBLISHED.get((each["way"], each["layers"], each["ratio"]))
        cells = (f"{each['layers']}-layer", f"1/{each['ratio']}", each["way"], f"{each['weights']:,}")
        rows.append((*cells, f"{each['error']:.2f}", "" if paper is None else f"{paper:.2f}"))
    return table(("network", "ratio", "way", ">weights", ">error", ">in the paper"), rows)


def draw(path: Path, found: Sequence[Record]) -> None:
    """Error against the share stored, one panel a depth; the paper's as crosses. Needs matplotlib."""
    depths = sorted({each["layers"] for each in found})
    canvas, panels = begin(len(depths))
    for panel, depth in zip(panels, depths, strict=True):
        for number, way in enumerate(WAYS):
            mine = sorted((e["ratio"], e["error"]) for e in found if (e["way"], e["layers"]) == (way, depth))
            paper = [(r, PUBLISHED[way, depth, r]) for r, _ in mine if (way, depth, r) in PUBLISHED]
            for points, style in ((mine, "o-"), (paper, "x")):
                if points:
                    label = way if points is mine else None
                    panel.plot(*zip(*points, strict=True), style, color=f"C{number}", label=label)
        ratios = sorted({each["ratio"] for each in found})
        panel.set(xscale="log", yscale="log", title=f"{depth}-layer", xlabel="share of the weights stored")
        panel.set_xticks(ratios, [f"1/{each}" for each in ratios])
        panel.set_xticks([], minor=True)
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter("{x:g}")
    panels[0].set_ylabel("test error, % (x: the paper)")
    panels[0].legend(fontsize=8)
    save(canvas, path)


if __name__ == "__main__":
    typer.run(main)
