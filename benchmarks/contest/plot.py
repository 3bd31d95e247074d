"""The ratios as bars, with the spread of the rounds and the targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .figures import Figure


def plot(path: Path, figures: Sequence[Figure], title: str) -> None:
    """A bar for each figure, named after the fastest peer; 1 is where that peer is. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    if not figures:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    places = range(len(figures))
    ratios = [figure.ratio for figure in figures]
    below = [max(figure.ratio - figure.low, 0.0) for figure in figures]
    above = [max(figure.high - figure.ratio, 0.0) for figure in figures]
    canvas, axes = pyplot.subplots(figsize=(9, 1.2 + 0.28 * len(figures)), layout="constrained")
    colours = ["tab:red" if figure.kept is False else "tab:blue" for figure in figures]
    axes.barh(places, ratios, xerr=[below, above], color=colours, ecolor="0.4", capsize=2)
    for place, figure in zip(places, figures, strict=True):
        if figure.at_least is not None:
            axes.plot([figure.at_least] * 2, [place - 0.4, place + 0.4], color="black", linewidth=1.5)
    names = [f"{one.subject}  {one.case}, {one.threads} thr  ({one.fastest})" for one in figures]
    axes.set_yticks(places, names, fontsize=7)
    axes.invert_yaxis()
    axes.axvline(1, color="0.5", linewidth=0.8)
    axes.set_xlabel("times as fast as the fastest peer; black: target; whiskers: least and most of a round")
    axes.set_title(title)
    canvas.savefig(path, dpi=120)
    pyplot.close(canvas)
