"""Nodes in the user's words: an operator, the module that runs it, the line that says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import fx


def named(node: fx.Node) -> str:
    """`add in layer1.0 (resnet.py:102)`, as far as the capture left a trace of it."""
    if node.op != "call_function":
        return str(node.target)
    target: Any = node.target
    operator = getattr(target, "overloadpacket", target).__name__.strip("_")
    module, line = module_of(node), source_place(node)
    inside = f" in {module}" if module else ""
    return operator + inside + (f" ({Path(line.file).name}:{line.number})" if line else "")


def module_of(node: fx.Node) -> str:
    """The path of the innermost module that runs a node; empty for the model itself."""
    stack: Any = node.meta.get("nn_module_stack") or {"": ("", "")}
    path = str(next(reversed(stack.values()))[0])
    return "" if path.startswith("_empty_nn_module_stack") else path


class Line(NamedTuple):
    file: str
    number: str
    code: str


def source_line(node: fx.Node) -> str:
    """The user's source line behind a node, as `file:line: code`; empty when the capture left no trace."""
    line = source_place(node)
    return f"{line.file}:{line.number}: {line.code}" if line else ""


def source_place(node: fx.Node) -> Line | None:
    """The innermost line behind a node that is not PyTorch's."""
    trace: Any = node.meta.get("stack_trace")
    lines = [line.strip() for line in str(trace or "").strip().splitlines()]
    library = str(Path(torch.__file__).parent)
    for position in range(len(lines) - 1, -1, -1):
        if lines[position].startswith("File ") and library not in lines[position]:
            file, number, *_ = lines[position].split(",")
            code = lines[position + 1] if position + 1 < len(lines) else ""
            return Line(file.removeprefix("File ").strip('"'), number.strip().removeprefix("line "), code)
    return None
