"""A canvas of panels, and the file that it becomes. Needs matplotlib, and no display."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def begin(count: int, size: tuple[float, float] = (6, 4.5), **axes: Any) -> tuple[Any, Any]:
    """So many panels beside each other, each of this size in inches; axes: what `subplots` takes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    width, height = size
    canvas, panels = pyplot.subplots(
        1, count, figsize=(width * count, height), layout="constrained", squeeze=False, **axes
    )
    return canvas, panels[0]


def save(canvas: Any, path: Path) -> None:
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=110)
    pyplot.close(canvas)
