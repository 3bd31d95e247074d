"""What a file may say before torch is allowed to read it.

torch.export's reader evaluates size expressions, and an fx graph compiles the names of its nodes to Python. A checksum
finds damage, not malice; so every such string must look like what it claims to be before anything is built from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hashcompile.core.errors import ArtifactError

NAME = re.compile(r"[A-Za-z0-9_.]*", re.ASCII)  # of nodes, parameters, arguments
EXPRESSION = re.compile(r"[A-Za-z0-9_\s+\-*/(),<>=&|~]*", re.ASCII)
SYMBOL = re.compile(r"[a-z]+\d+", re.ASCII)  # s0, u1: the sizes themselves
LONGEST = 2000  # characters of a size expression; an honest one is far shorter
QUOTED = re.compile(r"'[a-z]+\d+'", re.ASCII)  # the same in sympy's long form: Symbol('s0', positive=True)
WORDS = frozenset(
    """Abs Add And CeilToInt CleanDiv Eq FloatPow FloatTrueDiv FloorDiv FloorToInt Ge Gt Identity IntTrueDiv Integer
    Le Lt Max Min Mod ModularIndexing Mul Ne Not Or Piecewise Pow PowByNatural PythonMod Rational RoundToInt Symbol
    ToFloat TruncToInt Where ceiling floor int_oo oo zoo True False positive integer nonnegative real""".split()  # noqa: SIM905
)


def check_graph(document: Any) -> None:
    """Refuse a graph in which a name or an expression could be code. Raises ArtifactError."""
    for key, text in strings(document):
        if key == "expr_str":
            check_expression(text)
        elif key.endswith(("name", "names")):
            check_name(text)


def check_name(text: Any) -> str:
    if not isinstance(text, str) or not NAME.fullmatch(text):
        raise ArtifactError(f"{text!r} is not a name")
    return text


def check_expression(text: str) -> None:
    plain = QUOTED.sub("s0", text)
    words = re.findall(r"[A-Za-z_]\w*", plain)
    known = all(word in WORDS or SYMBOL.fullmatch(word) for word in words)
    if not known or not EXPRESSION.fullmatch(plain) or "**" in plain or len(plain) > LONGEST:
        raise ArtifactError(f"{text[:200]!r} is not a size")


def strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string of a JSON document, with the key it stands under."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for inner, child in value.items():
            yield from strings(child, inner)
    elif isinstance(value, list):
        for child in value:
            yield from strings(child, key)
