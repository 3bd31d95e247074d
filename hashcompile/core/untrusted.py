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
SYMBOL = re.compile(r"[a-z]+\d+|[a-z]", re.ASCII)  # s0, u1: the sizes themselves
FUNCTIONS = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "CeilToInt",
        "CleanDiv",
        "Eq",
        "False",
        "FloatPow",
        "FloatTrueDiv",
        "FloorDiv",
        "FloorToInt",
        "Ge",
        "Gt",
        "Identity",
        "IntTrueDiv",
        "Le",
        "Lt",
        "Max",
        "Min",
        "Mod",
        "ModularIndexing",
        "Mul",
        "Ne",
        "Not",
        "Or",
        "Piecewise",
        "Pow",
        "PowByNatural",
        "PythonMod",
        "RoundToInt",
        "ToFloat",
        "True",
        "TruncToInt",
        "Where",
        "ceiling",
        "floor",
        "int_oo",
        "oo",
        "zoo",
    ]
)


def check_graph(document: Any) -> None:
    """Refuse a graph in which a name or an expression could be code. Raises ArtifactError."""
    for key, text in strings(document):
        if key == "expr_str":
            check_expression(text)
        elif key.endswith("name") or key.endswith("names"):
            check_name(text)


def check_name(text: Any) -> str:
    if not isinstance(text, str) or not NAME.fullmatch(text):
        raise ArtifactError(f"{text!r} is not a name")
    return text


def check_expression(text: str) -> None:
    words = re.findall(r"[A-Za-z_]\w*", text)
    if not EXPRESSION.fullmatch(text) or not all(w in FUNCTIONS or SYMBOL.fullmatch(w) for w in words):
        raise ArtifactError(f"{text!r} is not a size")


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
