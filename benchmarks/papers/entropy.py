"""Coders of small whole numbers, on what is in `.hc` files: bytes, and the time of ours.

    python benchmarks/papers/entropy.py model.hc ... [--out DIR]

- packed: as it lies in memory, padding included.
- entropy: what no code of single symbols goes below.
- Huffman: with lengths of 4 bits a symbol in front, as canonical codes need them.
- rANS: ours, streams as they are written.
- deflate, LZMA, and Zstandard and Brotli where they are installed: the smaller of what they make of the packed bytes
  and of one byte a number.

A table goes to stdout; JSON and a plot to `build/benchmarks`. A file that was measured is not measured again.
"""

from __future__ import annotations

import heapq
import importlib
import lzma
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script: its packages lie one folder up

from contest.prepared import BUILD

import hashcompile as hc
from hashcompile.core import entropy
from hashcompile.core.console import show, table
from hashcompile.core.encoded import encoded_weights
from papers.canvas import begin, save
from papers.kept import Kept, Record

Coder = Callable[[bytes], bytes]
OURS = ("packed", "entropy", "Huffman", "rANS")  # what is counted beside the libraries


class Numbers(NamedTuple):
    """Of one layer: values below `size`, and the bytes that hold them packed."""

    values: entropy.Bytes
    size: int
    packed: bytes


def libraries() -> dict[str, Coder]:
    """At settings that favour size."""
    found: dict[str, Coder] = {
        "deflate": lambda data: zlib.compress(data, 9),
        "LZMA": lambda data: lzma.compress(data, preset=6),
    }
    for name, module, use in (
        ("Zstandard", "zstandard", lambda lib, data: lib.ZstdCompressor(19).compress(data)),
        ("Brotli", "brotli", lambda lib, data: lib.compress(data)),
    ):
        try:
            library = importlib.import_module(module)
        except ImportError:
            show(f"no {name}: pip install {module}")
        else:
            found[name] = lambda data, library=library, use=use: use(library, data)
    return found


def limit(values: entropy.Bytes) -> float:
    times = np.unique(values, return_counts=True)[1]
    return float(-(times * np.log2(times / len(values))).sum() / 8)


def huffman(values: entropy.Bytes, size: int) -> float:
    """Bytes of a canonical Huffman code: each merge of two subtrees adds a bit to all that is below."""
    heap = [int(n) for n in np.bincount(values, minlength=size) if n]
    heapq.heapify(heap)
    bits = len(values) if len(heap) == 1 else 0
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        bits += both
        heapq.heappush(heap, both)
    return (bits + 4 * size) / 8


def main(
    files: Annotated[list[Path], typer.Argument(help="Compiled models.")],
    out: Annotated[Path, typer.Option(help="Folder for JSON and plot.")] = BUILD,
) -> None:
    """Compare coders on the codes and the places of each file."""
    coders = libraries()
    found = []
    for file in files:
        kept = Kept(
            out / "entropy.json", {"sha256": sha256(file.read_bytes()).hexdigest(), "coders": [*coders]}
        )
        for part, numbers in parts(file).items():
            found.append({"file": file.name, **kept.once({"part": part}, partial(measure, numbers, coders))})
    show("bytes; millions of numbers a second of CPU time")
    show(summary(found), "")
    draw(out / "entropy.png", found)


def parts(file: Path) -> dict[str, list[Numbers]]:
    """What a file has of each part of a code, layer by layer: indices, places."""
    found: dict[str, list[Numbers]] = {}
    for code in encoded_weights(hc.load(file).graph_module).values():
        stored = code.storage()
        for name, (values, size, instead) in code.symbols().items():
            packed = b"".join(stored[each].numpy().tobytes() for each in instead)
            found.setdefault(name, []).append(Numbers(values.numpy(), size, packed))
    return found


def measure(layers: Sequence[Numbers], coders: Mapping[str, Coder]) -> Record:
    """Bytes by every way, and seconds of ours, of all layers together."""
    sizes, encode, decode = dict.fromkeys((*OURS, *coders), 0.0), 0.0, 0.0
    for values, size, packed in layers:
        begin = time.process_time()
        stream = entropy.encode(values, size)
        middle = time.process_time()
        entropy.decode(np.frombuffer(stream, np.uint8), len(values), size)
        encode, decode = encode + middle - begin, decode + time.process_time() - middle
        ways = len(packed), limit(values) if len(values) else 0.0, huffman(values, size), len(stream)
        for name, found in zip(OURS, ways, strict=True):
            sizes[name] += found
        for name, use in coders.items():
            sizes[name] += min(len(use(packed)), len(use(values.tobytes())))
    count = sum(len(each.values) for each in layers)
    return {"numbers": count, "bytes": sizes, "encode": encode, "decode": decode}


def summary(found: Sequence[Record]) -> object:
    rows = []
    for each in found:
        sizes = [f"{size:,.0f}" for size in (each["numbers"], *each["bytes"].values())]
        speeds = [f"{each['numbers'] / max(each[way], 1e-9) / 1e6:.1f}" for way in ("encode", "decode")]
        rows.append((each["file"], each["part"], *sizes, *speeds))
    names = [f">{name}" for name in found[0]["bytes"]] if found else []
    return table(("file", "part", ">numbers", *names, ">encode", ">decode"), rows)


def draw(path: Path, found: Sequence[Record]) -> None:
    """Bytes against the entropy, a group of bars for each part of each file. Needs matplotlib."""
    canvas, (panel,) = begin(1, (max(6, 3 * len(found)), 4.5))
    for place, each in enumerate(found):
        sizes = {name: size for name, size in each["bytes"].items() if name != "entropy"}
        for number, (name, size) in enumerate(sizes.items()):
            width = 0.8 / len(sizes)
            share = size / max(each["bytes"]["entropy"], 1)
            label = name if place == 0 else None
            panel.bar(place + (number + 0.5) * width - 0.4, share, width, color=f"C{number}", label=label)
    panel.set_xticks(range(len(found)), [f"{each['file']}: {each['part']}" for each in found])
    panel.axhline(1, color="0.5", linewidth=0.8)
    panel.set_ylabel("bytes, times the entropy of single numbers")
    panel.legend(fontsize=8)
    save(canvas, path)


if __name__ == "__main__":
    typer.run(main)
