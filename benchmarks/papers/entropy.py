"""Coders of small whole numbers, on what is in `.hc` files: bytes, and the time of ours.

    python benchmarks/papers/entropy.py model.hc ...

- packed: as it lies in memory, padding included.
- entropy: what no code of single symbols goes below.
- Huffman: with lengths of 4 bits a symbol in front, as canonical codes need them.
- rANS: ours, streams as they are written.
- deflate, LZMA, and Zstandard and Brotli where they are installed: the smaller of what they make of the packed bytes
  and of one byte a number.
"""

from __future__ import annotations

import heapq
import importlib
import lzma
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script: its packages lie one folder up

import hashcompile as hc
from hashcompile.core import entropy
from hashcompile.core.console import show, table
from hashcompile.core.encoded import encoded_weights

Coder = Callable[[bytes], bytes]


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


def main(files: Annotated[list[Path], typer.Argument(help="Compiled models.")]) -> None:
    """Compare coders on the codes and the places of each file."""
    coders = libraries()
    rows = []
    for file in files:
        sums: dict[str, dict[str, float]] = {}
        for code in encoded_weights(hc.load(file).graph_module).values():
            stored = code.storage()
            for name, (tensor, size, instead) in code.symbols().items():
                values = tensor.numpy()
                packed = b"".join(stored[each].numpy().tobytes() for each in instead)
                begin = time.process_time()
                stream = entropy.encode(values, size)
                middle = time.process_time()
                entropy.decode(np.frombuffer(stream, np.uint8), len(values), size)
                seconds = middle - begin, time.process_time() - middle
                figures = {
                    "numbers": len(values),
                    "packed": len(packed),
                    "entropy": limit(values) if len(values) else 0,
                    "Huffman": huffman(values, size),
                    "rANS": len(stream),
                    **{
                        each: min(len(use(packed)), len(use(values.tobytes())))
                        for each, use in coders.items()
                    },
                    "encode": seconds[0],
                    "decode": seconds[1],
                }
                total = sums.setdefault(name, dict.fromkeys(figures, 0))
                for each, value in figures.items():
                    total[each] += value
        for name, total in sums.items():
            speeds = [f"{total['numbers'] / total[each] / 1e6:.1f}" for each in ("encode", "decode")]
            sizes = [
                f"{total[each]:,.0f}" for each in ("numbers", "packed", "entropy", "Huffman", "rANS", *coders)
            ]
            rows.append((file.name, name, *sizes, *speeds))
    header = (
        "file",
        "part",
        ">numbers",
        ">packed",
        ">entropy",
        ">Huffman",
        ">rANS",
        *(f">{each}" for each in coders),
    )
    show("bytes; millions of numbers a second of CPU time")
    show(table((*header, ">encode", ">decode"), rows), "")


if __name__ == "__main__":
    typer.run(main)
