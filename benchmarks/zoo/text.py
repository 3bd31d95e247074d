"""Ordinary English paragraphs: stories and encyclopedia articles, or Python's own docstrings anywhere."""

from __future__ import annotations

import ast
import inspect
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from . import data

SHORTEST = 80  # characters of a paragraph worth embedding


class Corpus(NamedTuple):
    source: str  # what the text is, for the reader of the figures
    calibration: list[str]
    unseen: list[str]  # shares no paragraph with `calibration`


def corpus(calibration: int, unseen: int, seed: int = 0) -> Corpus:
    """Two disjoint samples of distinct paragraphs, the same for the same seed and machine."""
    folder = data.find("text")
    source = "TinyStories and WikiText-2" if folder else "docstrings of Python's standard library"
    paragraphs = [*stories(), *_articles(folder)] if folder else list(_docstrings())
    distinct = sorted({text for text in paragraphs if len(text) >= SHORTEST})
    random.Random(seed).shuffle(distinct)
    if len(distinct) < calibration + unseen:
        raise data.MissingDataError(f"{source} has {len(distinct)} paragraphs; {calibration + unseen} wanted")
    return Corpus(source, distinct[:calibration], distinct[calibration : calibration + unseen])


def stories() -> list[str]:
    """TinyStories, one string a story, in the order of the file. Raises MissingDataError."""
    text = data.require("text", "tinystories_2m.txt").read_text(encoding="utf-8", errors="replace")
    return [story.strip() for story in text.split("<|endoftext|>") if story.strip()]


def _articles(folder: Path) -> Iterator[str]:
    """Paragraphs of WikiText-2: its sentences without holes, their tokenisation undone (' @-@ ' -> '-')."""
    for line in (folder / "wikitext2_test.txt").read_text(encoding="utf-8").splitlines():
        if not line.strip().startswith("="):
            sentences = [part for part in re.split(r"(?<= \.) ", line.strip()) if "<unk>" not in part]
            text = re.sub(r" @(.)@ ", r"\1", " ".join(sentences))
            yield re.sub(r" ([,.;:!?)'])", r"\1", text).replace("( ", "(")


def _docstrings() -> Iterator[str]:
    """Paragraphs of the docstrings of the standard library's top-level modules."""
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = inspect.cleandoc(ast.get_docstring(node) or "")
                yield from (" ".join(part.split()) for part in text.split("\n\n"))
