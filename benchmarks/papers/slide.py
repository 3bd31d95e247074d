"""SLIDE (arXiv 1903.03129) for inference: the outputs of 20,000 classes, of which a hash of the input chooses few.

    python benchmarks/papers/slide.py [--recall 0.99] [--bits 512] [--batch 1] [--threads 1] [--out DIR]

A next-word model is trained here, for minutes. Its output layer then stands alone, and reads what the words before it
became:

- `hc.Wide`: sketches with a limit for each row, at several recalls and numbers of bits; rows in fp32, and 4-bit codes.
- SLIDE's own choice: the union of T tables of b bits, under the asymmetric transform, as many tables as it takes. Only
  what it would compute is counted: no kernel runs it.
- what it is measured against: the full product in ONNX Runtime fp32, and 4-bit codes on our kernel.

The paper's figures stand beside ours at the end. They are of training: what it says of an answer that is computed in
part, it says of accuracy over time.

Recall and share are those of the test text. Times are of one fixed input, or of a batch of different ones, files in
turns. A table goes to stdout; JSON and a plot to `build/benchmarks`. What was measured is kept, and a run goes on where
the last one was stopped, within its training too. The data folder is named by HASHCOMPILE_DATA.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import safetensors.torch
import torch
import typer
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script: its packages lie one folder up

from contest.prepared import BUILD
from zoo import words

import hashcompile as hc
from hashcompile.bench import Settings, bench, contenders
from hashcompile.bench_inputs import Sizes
from hashcompile.core.console import progress, show, table
from hashcompile.core.encoded import encoded_weights
from hashcompile.core.lsh import as_items, as_queries, random_planes, simhash
from papers.canvas import begin, save
from papers.kept import Kept, Record
from papers.measure import dense

TABLES = 256  # of SLIDE's, at most
PUBLISHED = (  # classes, hashes, times as fast as the dense product on the same CPU, and as a V100
    ("SLIDE, Delicious-200K", 205_443, "50 tables of 9 bit (SimHash)", ">10x", ">3.5x"),
    ("SLIDE, Amazon-670K", 670_091, "50 tables of 8 codes (DWTA)", ">10x", ">3.5x"),
)
SEEN, TESTED = 4096, 1024  # inputs for calibration, and for recall
Inputs = tuple[Tensor, Tensor]  # hidden states of the training text and of the test text


def trained(folder: Path, steps: int) -> tuple[words.NextWord, words.Words]:
    """The next-word model, from `folder` where it was trained before."""
    text = words.words()
    torch.manual_seed(0)
    model, keep = words.NextWord(len(text.vocabulary)), folder / f"slide_words_{steps}.safetensors"
    if not keep.exists():
        part = keep.with_stem(f"{keep.stem}_part")
        words.train(model, text.train, steps, keep=part)
        keep.parent.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(model.state_dict(), keep)
        part.unlink(missing_ok=True)
    model.load_state_dict(safetensors.torch.load_file(keep))
    return model.eval(), text


def hidden(model: words.NextWord, text: words.Words) -> Inputs:
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        first, second = (
            model.describe(windows[torch.randperm(len(windows), generator=draw)[:count], : words.CONTEXT])
            for windows, count in ((text.train, SEEN), (text.test, TESTED))
        )
    return first, second


def compiled(head: nn.Linear, inputs: Inputs, method: Any) -> hc.CompiledModel:
    return hc.compile(head, (inputs[1][:2],), method, [(inputs[0],)], progress=False)


def found(head: nn.Linear, inputs: Tensor, near: Tensor) -> Record:
    """Recall of the best, of the ten best, and the share of rows in `near: (M, N)` bool."""
    with torch.no_grad():
        best = head(inputs).topk(10, 1).indices
    met = near.gather(1, best).double()
    return {
        "recall": float(met[:, 0].mean()),
        "ten": float(met.mean()),
        "share": float(near.double().mean()),
    }


def ours(
    head: nn.Linear, inputs: Inputs, recall: float, bits: int, code_bits: int | None, runs: Times
) -> Record:
    made = compiled(head, inputs, hc.Wide(recall, bits, code_bits, classes=2))
    (code,) = encoded_weights(made.graph_module).values()
    index: Any = code
    near = index.candidates(inputs[1])
    with torch.no_grad():
        chosen = made(inputs[1]).where(near, -torch.inf).argmax(1)
        same = float((chosen == head(inputs[1]).argmax(1)).double().mean())
    return {**found(head, inputs[1], near), "same": same, "sketch": index.index.bits, **runs.of(made)}


def tables_of(head: nn.Linear, inputs: Inputs, recall: float, bits: int) -> Record:
    """SLIDE's: one table more, until that share of the best rows was met."""
    bias = head.bias.detach()[:, None]
    rows = torch.cat([head.weight.detach(), bias], 1)
    queries = torch.cat([inputs[1], torch.ones(len(inputs[1]), 1)], 1)
    items, searching = as_items(rows), as_queries(queries)
    near = torch.zeros(len(queries), len(rows), dtype=torch.bool)
    result: Record = {}
    for count in range(1, TABLES + 1):
        planes = random_planes(items.shape[1], bits, 1, count)
        near |= simhash(searching, planes)[0][:, None] == simhash(items, planes)[0][None]
        result = {**found(head, inputs[1], near), "tables": count}
        if result["recall"] >= recall:
            break
    return result


class Times:
    """Of files beside the full product and 4-bit codes."""

    def __init__(
        self, head: nn.Linear, inputs: Inputs, folder: Path, batch: Sequence[int], threads: int
    ) -> None:
        self.folder, self.batch, self.threads, self.inputs = folder, batch, threads, inputs[1]
        folder.mkdir(parents=True, exist_ok=True)
        self.full, self.coded = folder / "slide_full.onnx", folder / "slide_4bit.onnx"
        dense(head, inputs[1][:2]).export_onnx(self.full, show=False)
        self.four = compiled(head, inputs, hc.Codebook(4))
        self.four.export_onnx(self.coded, show=False)

    def of(self, made: hc.CompiledModel) -> Record:
        path = self.folder / "slide_wide.onnx"
        made.export_onnx(path, show=False)
        times = {}
        for size in self.batch:
            arrays = self.folder / "slide_inputs.npz"
            np.savez(arrays, input=self.inputs[:size].numpy())
            settings = Settings(self.threads, 300, Sizes(inputs=arrays))
            three = contenders([self.full, self.coded, path])
            for name, result in zip(("full", "coded", "wide"), bench(three, settings, False), strict=True):
                times[f"{name}_{size}"] = result.p50_ms
        return times


def main(
    recall: Annotated[list[float] | None, typer.Option(help="Wanted; repeatable.")] = None,
    bits: Annotated[list[int] | None, typer.Option(help="Of a sketch; repeatable.")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Inputs at once; repeatable.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of training.")] = 2000,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    out: Annotated[Path, typer.Option(help="Folder for JSON, plot and the trained network.")] = BUILD,
) -> None:
    """Train the model, choose rows in every way, and measure."""
    torch.set_num_threads(threads)
    model, text = trained(out / "papers", steps)
    head, inputs, sizes = model.head, hidden(model, text), batch or [1, 16]
    setting = {"steps": steps, "threads": threads, "classes": len(text.vocabulary)}
    kept = Kept(out / "slide.json", setting)
    wanted = recall or [0.9, 0.95, 0.99]
    times = Times(head, inputs, out / "papers", sizes, threads)
    todo = list(jobs(head, inputs, wanted, bits or [128, 256, 512], times))
    results = []
    with progress("SLIDE", len(todo)) as bar:
        for key, job in todo:
            results.append(kept.once({**key, "batch": sizes}, job))
            bar.advance()
    rows, columns = head.weight.shape
    show(
        f"next word: {rows} classes of {columns} inputs; test text, {len(inputs[1])} inputs; {threads} threads"
    )
    show(f"best class of the 4-bit codes is the best one: {agreement(head, times.four, inputs[1]):.2%}")
    show(summary(results, sizes), "")
    show("the paper trains, on 44 cores, and counts time to an accuracy; here one layer answers")
    show(beside(results, len(text.vocabulary), sizes), "")
    draw(out / "slide.png", results, sizes)


def jobs(
    head: nn.Linear, inputs: Inputs, wanted: Sequence[float], bits: Sequence[int], times: Times
) -> Iterator[tuple[Record, Any]]:
    for recall in wanted:
        for count, code_bits in product(bits, (None, 4)):
            rows = f", rows of {code_bits} bit" if code_bits else ""
            key = {"way": f"sketch, {count} bit{rows}", "wanted": recall}
            yield key, partial(ours, head, inputs, recall, count, code_bits, times)
        for count in (4, 8):
            key = {"way": f"union of tables, {count} bit", "wanted": recall}
            yield key, partial(tables_of, head, inputs, recall, count)


def agreement(head: nn.Linear, made: hc.CompiledModel, inputs: Tensor) -> float:
    with torch.no_grad():
        return float((made(inputs).argmax(1) == head(inputs).argmax(1)).double().mean())


def summary(results: Sequence[Record], sizes: Sequence[int]) -> object:
    rows = []
    for each in results:
        cells = [f"{each[name]:.2%}" if name in each else "" for name in ("recall", "ten", "same", "share")]
        times = ("", "", "") * len(sizes)
        if f"wide_{sizes[0]}" in each:
            by_size = ([each[f"{name}_{size}"] for name in ("wide", "full", "coded")] for size in sizes)
            times = tuple(
                cell
                for a, b, c in by_size
                for cell in (f"{1000 * a:.0f} us", f"{b / a:.2f}x", f"{c / a:.2f}x")
            )
        way = each["way"] + (f", {each['tables']} tables" if "tables" in each else "")
        rows.append((f"{each['wanted']:.2%}", way, *cells, *times))
    heads = [f">{text}" for size in sizes for text in (f"M = {size}", "as fast as full", "as 4 bit")]
    return table(
        ("recall asked", "way", ">recall", ">of ten best", ">same class", ">rows computed", *heads), rows
    )


def beside(results: Sequence[Record], classes: int, sizes: Sequence[int]) -> object:
    """What the paper claims, and our fastest way to each recall, in the same columns."""
    rows = [(name, f"{count:,}", how, "", same, gpu) for name, count, how, same, gpu in PUBLISHED]
    for wanted in dict.fromkeys(each["wanted"] for each in results):
        timed = [each for each in results if each["wanted"] == wanted and f"wide_{sizes[0]}" in each]
        for size in sizes if timed else ():
            best = min(timed, key=lambda each: each[f"wide_{size}"])
            ratio = best[f"full_{size}"] / best[f"wide_{size}"]
            cells = (best["way"], f"{best['recall']:.2%}", f"{ratio:.2f}x", "")
            rows.append((f"ours, M = {size}", f"{classes:,}", *cells))
    heads = (">classes", "hashes", ">recall", ">as fast as dense, same CPU", ">as a V100")
    return table(("", *heads), rows)


def draw(path: Path, results: Sequence[Record], sizes: Sequence[int]) -> None:
    """Rows computed against recall; times against recall. Needs matplotlib."""
    canvas, (left, *right) = begin(1 + len(sizes))
    for number, way in enumerate(dict.fromkeys(each["way"] for each in results)):
        mine = sorted((each for each in results if each["way"] == way), key=lambda each: each["recall"])
        style = {"color": f"C{number}", "marker": "o", "label": way}
        left.plot([e["recall"] for e in mine], [100 * e["share"] for e in mine], **style)
        for panel, size in zip(right, sizes, strict=True):
            timed = [each for each in mine if f"wide_{size}" in each]
            if timed:
                panel.plot([e["recall"] for e in timed], [e[f"wide_{size}"] for e in timed], **style)
    left.set(yscale="log", xlabel="recall of the best class", ylabel="rows computed, %")
    left.legend(fontsize=8)
    for panel, size in zip(right, sizes, strict=True):
        for name, text, dashes in (("full", "full product, fp32", "--"), ("coded", "4-bit codes", ":")):
            values = [each[f"{name}_{size}"] for each in results if f"{name}_{size}" in each]
            if values:
                panel.axhline(float(np.median(values)), color="0.4", linestyle=dashes, label=text)
        panel.set(yscale="log", xlabel="recall of the best class", ylabel="ms", title=f"M = {size}")
        panel.legend(fontsize=8)
    save(canvas, path)


if __name__ == "__main__":
    typer.run(main)
