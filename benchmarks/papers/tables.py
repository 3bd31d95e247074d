"""What was measured, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from hashcompile.core.console import table

from .measure import Latency, Point


def accuracies(points: Sequence[Point], whole: float, indices: bool = False) -> object:
    """indices: with the PQ index of what is left."""
    rows = [
        (
            each.way,
            f"{each.strength:g}",
            f"{each.macs:.1%}",
            f"{each.parameters:.1%}",
            f"{each.before:.2f}",
            f"{each.before - whole:+.2f}",
            "" if each.after is None else f"{each.after:.2f}",
            "" if each.after is None else f"{each.after - whole:+.2f}",
            *([f"{each.index:.3f}"] if indices and each.index is not None else ()),
        )
        for each in points
    ]
    header = (
        "way",
        ">strength",
        ">MACs left",
        ">parameters left",
        ">top-1",
        ">points",
        ">fine-tuned",
        ">points",
        *([">PQ index"] if indices else ()),
    )
    return table(header, rows)


def speeds(results: Sequence[Latency]) -> object:
    rows = [
        (
            each.way,
            f"{each.strength:g}",
            str(each.batch),
            f"{each.whole_ms:.3f} ms",
            f"{each.ms:.3f} ms",
            f"{each.macs:.1%}",
            f"{each.time:.1%}",
            each.verdict,
        )
        for each in results
    ]
    header = ("way", ">strength", ">batch", ">whole", ">reduced", ">MACs left", ">time left", "")
    return table(header, rows)
