"""A terminal gets a bar, a pipe gets results only, and no cell is mistaken for markup."""

import io
import re
import sys

import pytest

from hashcompile.core.console import BARS, format_bytes, progress, render, show, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("enabled", [True, False])
def test_progress_is_quiet_in_a_pipe(capfd: pytest.CaptureFixture[str], enabled: bool) -> None:
    with progress("encoding", 3, enabled) as bar:
        bar.advance()
        bar.advance(2)
    assert capfd.readouterr() == ("", "")


def test_progress_at_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("calibrating", 2) as outer, progress("encoding", 3) as inner:
        inner.advance(3)
        outer.advance(2)
        assert BARS.get() is not None
    assert re.search(r"calibrating[^\n]*\n[^\n]*encoding", terminal.getvalue()), "one below the other"
    assert BARS.get() is None
    assert "ETA" in terminal.getvalue()
    assert capsys.readouterr().out == "", "stdout is for results"

    silent = Terminal()
    monkeypatch.setattr(sys, "stderr", silent)
    with progress("calibrating", 2, enabled=False) as bar:
        bar.advance()
    assert silent.getvalue() == ""


def test_table_aligns_and_takes_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    drawn = table(["layer", ">bytes"], [("blocks[0].fc", "1,024"), ("[red]head", "8")], title="layers")
    lines = render(drawn).splitlines()
    assert lines == [
        "layers",
        "layer         bytes",
        "blocks[0].fc  1,024",
        "[red]head         8",
    ]
    show(drawn)
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == lines


def test_a_pipe_does_not_cut_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    name = "encoder." * 14
    show(table(["layer", ">bits"], [(name, "4")]))
    assert name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (12_345_678, "12.35 MB"), (3 * 10**9, "3.00 GB")],
)
def test_format_bytes(count: int, text: str) -> None:
    assert format_bytes(count) == text
