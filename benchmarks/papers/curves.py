"""Accuracy against what is left, as curves. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .canvas import begin, save
from .measure import BATCHES, Latency, Point

SIZE = (7, 5)  # of a panel, inches


def draw(
    path: Path,
    title: str,
    label: str,
    whole: float,
    points: Sequence[Point],
    x: Callable[[Point], float],
    indices: bool = False,
) -> None:
    """One panel before fine-tuning, one after it where there was any; a curve for each way. indices: that of the PQ
    index too, dashed, in the last panel."""
    tuned = any(point.after is not None for point in points)
    canvas, panels = begin(1 + tuned, SIZE, sharey=True)
    from matplotlib import pyplot

    colours = pyplot.get_cmap("tab20")
    names = list(dict.fromkeys(point.way for point in points))
    for panel, after in zip(panels, (False, True), strict=False):
        plot(panel, [(p.way, x(p), p.after if after else p.before) for p in points], whole)
        if indices and after == tuned:
            measure = panel.twinx()
            measure.set_ylabel("PQ index of what is left (dashed)")
            for number, name in enumerate(names):
                mine = sorted((x(p), p.index) for p in points if p.way == name and p.index is not None)
                measure.plot(*zip(*mine, strict=True), "--", color=colours(number % 20), linewidth=1)
        panel.set_xlabel(label)
        panel.set_title("fine-tuned" if after else "not fine-tuned")
    finish(canvas, panels, title, path)


def draw_times(
    path: Path, title: str, whole: float, points: Sequence[Point], times: Sequence[Latency]
) -> None:
    """A panel for each batch size: accuracy against measured time."""
    found = {(p.way, p.strength): p.accuracy for p in points}
    canvas, panels = begin(len(BATCHES), SIZE, sharey=True)
    for panel, batch in zip(panels, BATCHES, strict=True):
        plot(panel, [(t.way, t.time, found[t.way, t.strength]) for t in times if t.batch == batch], whole)
        panel.axvline(1, color="0.5", linewidth=0.8)
        panel.set(xlabel="time, share left", title=f"batch {batch}")
    finish(canvas, panels, title, path)


def plot(panel: Any, points: Sequence[tuple[str, float, float | None]], whole: float) -> None:
    """A curve for each way, of (way, x, accuracy)."""
    from matplotlib import pyplot

    colours = pyplot.get_cmap("tab20")
    for number, name in enumerate(dict.fromkeys(way for way, _, _ in points)):
        mine = sorted((x, y) for way, x, y in points if way == name and y is not None)
        if mine:
            marks = {"color": colours(number % 20), "marker": "o", "markersize": 3, "linewidth": 1}
            panel.plot(*zip(*mine, strict=True), label=name, **marks)
    panel.axhline(whole, color="0.5", linewidth=0.8)


def finish(canvas: Any, panels: Any, title: str, path: Path) -> None:
    panels[0].set_ylabel("top-1, %")
    panels[0].legend(fontsize=7)
    canvas.suptitle(title)
    save(canvas, path)
