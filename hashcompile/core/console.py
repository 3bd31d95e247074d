"""What a person at a terminal sees: progress with an ETA, and aligned tables. A pipe sees only results."""

import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from contextvars import ContextVar
from io import StringIO
from typing import Protocol

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

# The bars on the terminal: a loop inside a loop gets a line below its own.
BARS: ContextVar[Progress | None] = ContextVar("BARS", default=None)
PIPE_WIDTH = 160  # rich assumes 80 columns where there is no terminal, and would cut a table


class Tracker(Protocol):
    """What a long loop needs to know of the bar above it."""

    def advance(self, n: int = 1) -> None: ...


class _Silent:
    def advance(self, n: int = 1) -> None:
        """Nobody is looking."""


class _Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, n: int = 1) -> None:
        self._progress.advance(self._task, n)


@contextmanager
def progress(description: str, total: int | None, enabled: bool = True) -> Iterator[Tracker]:
    """A bar with an ETA for `total` steps; `None` where the end is unknown. Quiet when not at a terminal.

    The bar goes to stderr and is removed at the end, so that stdout holds results and nothing else.
    """
    console = Console(stderr=True)
    if not (enabled and console.is_terminal):
        yield _Silent()
        return
    if (bars := BARS.get()) is not None:
        task = bars.add_task(description, total=total)
        try:
            yield _Bar(bars, task)
        finally:
            bars.remove_task(task)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        token = BARS.set(bars)
        try:
            yield _Bar(bars, bars.add_task(description, total=total))
        finally:
            BARS.reset(token)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> Table:
    """Aligned columns; a header that starts with `>` is a number and sits on the right.

    Cells are plain text: the name of a layer may hold brackets, which rich would read as markup.
    """
    result = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in columns:
        number = name.startswith(">")
        result.add_column(
            name.lstrip(">"), justify="right" if number else "left", no_wrap=number, overflow="fold"
        )
    for row in rows:
        result.add_row(*(Text(cell) for cell in row))
    return result


def show(*renderables: RenderableType) -> None:
    """Print to stdout, at the terminal's width or a generous one in a pipe."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    console.print(*renderables)


def render(*renderables: RenderableType) -> str:
    """The same as plain text, for `str(report)` and log files."""
    buffer = StringIO()
    Console(file=buffer, width=PIPE_WIDTH, highlight=False).print(*renderables)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def format_bytes(count: int) -> str:
    """12_345_678 -> '12.35 MB': decimal units, as disks and file managers count."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} B"


def format_count(count: int) -> str:
    """12_345_678 -> '12.35 M'."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return str(count)


@contextmanager
def quiet() -> Iterator[None]:
    """What libraries narrate while they trace and export; their errors reach the user as exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
