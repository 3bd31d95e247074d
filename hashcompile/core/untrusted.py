"""What a file may say before torch is allowed to read it.

torch.export's reader evaluates size expressions, and an fx graph compiles the names of its nodes to Python. A checksum
finds damage, not malice; so every string must stand where one is expected, and look like what it claims to be, before
anything is built from it.
"""

from __future__ import annotations

import re
from typing import Any

from hashcompile.core.errors import ArtifactError

NAME = re.compile(r"[A-Za-z0-9_.]*", re.ASCII)  # of nodes, parameters, arguments
EXPRESSION = re.compile(r"[A-Za-z0-9_\s+\-*/(),<>=&|~]*", re.ASCII)
SYMBOL = re.compile(r"[a-z]+\d+", re.ASCII)  # s0, u1: the sizes themselves
# An operator of a library of torch, or arithmetic on sizes.
TARGET = re.compile(
    r"torch\.ops\.[a-z]\w*\.\w+\.\w+"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|and_|or_|eq|ne|lt|le|gt|ge|getitem)"
    r"|math\.(ceil|floor|trunc|sqrt)"
    r"|torch\.(_?sym_\w+)",
    re.ASCII,
)
# Strings that nobody compiles: values of arguments (approximate="tanh"), devices, and where a node came from.
PROSE = frozenset(
    """as_string as_strings type nn_module_stack torch_fn source_fn_stack in_spec out_spec verifiers
    torch_version""".split()  # noqa: SIM905
)
INFINITE = frozenset(("Infinity", "-Infinity", "NaN"))  # numbers that JSON has no other word for
LONGEST = 2000  # characters of a size expression; an honest one is far shorter
QUOTED = re.compile(r"'[a-z]+\d+'", re.ASCII)  # the same in sympy's long form: Symbol('s0', positive=True)
WORDS = frozenset(
    """Abs Add And CeilToInt CleanDiv Eq FloatPow FloatTrueDiv FloorDiv FloorToInt Ge Gt Identity IntTrueDiv Integer
    Le Lt Max Min Mod ModularIndexing Mul Ne Not Or Piecewise Pow PowByNatural PythonMod Rational RoundToInt Symbol
    ToFloat TruncToInt Where ceiling floor int_oo oo zoo True False positive integer nonnegative real""".split()  # noqa: SIM905
)


def check_graph(document: Any) -> None:
    """Refuse a graph that says anything but what an exported program says. Raises ArtifactError."""
    if isinstance(document, dict):
        for key, child in document.items():
            check_name(key)
            if isinstance(child, str):
                check_string(key, child)
            elif isinstance(child, list) and any(isinstance(each, str) for each in child):
                for each in child:
                    check_string(key, each)
            else:
                check_graph(child)
    elif isinstance(document, list):
        for child in document:
            check_graph(child)
    elif isinstance(document, str):
        raise ArtifactError(f"{document[:200]!r} has no place in a graph")


def check_string(key: str, text: Any) -> None:
    """Hold a string to what may stand under its key."""
    if key == "expr_str":
        check_expression(text)
    elif key == "target":
        if not isinstance(text, str) or not TARGET.fullmatch(text):
            raise ArtifactError(f"{text!r} is not an operator that a graph may call")
    elif key == "fqn" or key.endswith(("name", "names")):
        check_name(text)
    elif key in ("as_float", "as_floats"):
        if not isinstance(text, int | float) and text not in INFINITE:
            raise ArtifactError(f"{str(text)[:200]!r} is no number")
    elif key not in PROSE or not isinstance(text, str):
        raise ArtifactError(f"{str(text)[:200]!r}: a graph says nothing under {key!r}")


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
