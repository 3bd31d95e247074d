"""Standings and figures as tables, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from hashcompile.core.console import format_bytes, table

from . import machine
from .figures import Figure
from .standings import Standing

DERIVED = ("kept", "net_ratio", "of_limit")  # of a Figure, in the JSON beside its fields
VERDICTS = {True: "pass", False: "MISS", None: ""}


def figures_table(figures: Sequence[Figure]) -> Table:
    """Ours against the fastest peer; the spread is the least and the most of one round."""
    rows = [
        (
            figure.subject,
            figure.case,
            str(figure.threads),
            format_ms(figure.ours_ms),
            figure.fastest,
            format_ms(figure.fastest_ms),
            f"{figure.ratio:.2f} x",
            f"{figure.low:.2f} - {figure.high:.2f}",
            "" if figure.net_ratio is None else f"{figure.net_ratio:.2f} x",
            "" if figure.at_least is None else f">= {figure.at_least:g} x",
            VERDICTS[figure.kept],
            "" if figure.bound is None else format_ms(figure.bound.milliseconds),
            "" if figure.of_limit is None else f"{figure.of_limit:.0%}",
            "" if figure.bound is None else figure.bound.by,
        )
        for figure in figures
    ]
    columns = (
        "subject",
        "case",
        ">threads",
        ">ours",
        "fastest peer",
        ">its time",
        ">ratio",
        ">spread",
        ">net",
    )
    return table((*columns, ">target", "", ">limit", ">reached", "bound by"), rows)


def times_table(standings: Sequence[Standing]) -> Table:
    """A line for each peer, a column for each case and number of threads."""
    places = list(dict.fromkeys((line.case, line.threads) for line in standings))
    cells: dict[str, dict[tuple[str, int], str]] = {}
    for line in standings:
        shown = format_ms(line.median_ms) if line.rounds_ms else "-"
        cells.setdefault(line.peer, {})[line.case, line.threads] = shown
    weights = {line.peer: line for line in reversed(standings) if line.file_bytes is not None}
    rows = [
        (peer, *(found.get(place, "") for place in places), *_weight(weights.get(peer)))
        for peer, found in cells.items()
    ]
    heads = [f">{case}, {threads} thr" for case, threads in places]
    title = standings[0].subject if standings else None
    return table(("contender", *heads, ">file", ">resident"), rows, title)


def _weight(line: Standing | None) -> tuple[str, str]:
    if line is None:
        return "", ""
    resident = "" if line.resident_bytes is None else format_bytes(line.resident_bytes)
    return format_bytes(line.file_bytes or 0), resident


def reasons(standings: Iterable[Standing]) -> list[str]:
    """Why a peer has no figures, each once."""
    return list(
        dict.fromkeys(f"{line.subject}: {line.peer}: {line.reason}" for line in standings if line.reason)
    )


def format_ms(milliseconds: float) -> str:
    """Three digits that count: 0.00471 -> '4.71 us', 12.34 -> '12.3 ms'."""
    value, unit = (1e3 * milliseconds, "us") if milliseconds < 0.9995 else (milliseconds, "ms")
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {unit}"


def document(
    settings: Mapping[str, Any], standings: Iterable[Standing], figures: Iterable[Figure], **more: Any
) -> dict[str, Any]:
    """Everything that was measured: `standings` are the raw figures, `figures` what the tables conclude."""
    concluded = [asdict(figure) | {name: getattr(figure, name) for name in DERIVED} for figure in figures]
    return {
        "machine": machine.facts(),
        "settings": dict(settings),
        "standings": [asdict(line) for line in standings],
        "figures": concluded,
        **more,
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
