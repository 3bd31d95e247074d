"""Accuracy against what is left, as curves. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .measure import Point


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
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tuned = any(point.after is not None for point in points)
    canvas, panels = pyplot.subplots(
        1, 1 + tuned, figsize=(7 * (1 + tuned), 5), sharey=True, layout="constrained", squeeze=False
    )
    colours = pyplot.get_cmap("tab20")
    names = list(dict.fromkeys(point.way for point in points))
    for panel, after in zip(panels[0], (False, True), strict=False):
        for number, name in enumerate(names):
            mine = sorted((x(p), p.after if after else p.before) for p in points if p.way == name)
            mine = [(place, value) for place, value in mine if value is not None]
            if mine:
                marks = {"color": colours(number % 20), "marker": "o", "markersize": 3, "linewidth": 1}
                panel.plot(*zip(*mine, strict=True), label=name, **marks)
        if indices and after == tuned:
            measure = panel.twinx()
            measure.set_ylabel("PQ index of what is left (dashed)")
            for number, name in enumerate(names):
                mine = sorted((x(p), p.index) for p in points if p.way == name and p.index is not None)
                measure.plot(*zip(*mine, strict=True), "--", color=colours(number % 20), linewidth=1)
        panel.axhline(whole, color="0.5", linewidth=0.8)
        panel.set_xlabel(label)
        panel.set_title("fine-tuned" if after else "not fine-tuned")
    panels[0][0].set_ylabel("top-1, %")
    panels[0][0].legend(fontsize=7)
    canvas.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=110)
    pyplot.close(canvas)
