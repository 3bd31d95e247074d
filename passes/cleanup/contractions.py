"""Products of matrices in the words of einsum -> matmul.

Given:  %s = aten.einsum("bihd,bjhd->bhij", [%q, %k])
Result: %a = aten.permute(%q, [0, 2, 1, 3]);  %b = aten.permute(%k, [0, 2, 1, 3])
        %s = aten.matmul(%a, aten.transpose(%b, 2, 3))

Whatever looks for a product then finds it in one spelling. An operand keeps the order of its own two dims, so that the
keys of an attention are (B, H, S, D) however they were written. The last node keeps its name and its readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import fx

from hashcompile.core.graph import call

aten = torch.ops.aten


class Equation(NamedTuple):
    """An einsum that is a product of matrices, one for each entry of the batch; every letter is a dim."""

    operands: tuple[str, str]
    batch: str
    rows: str  # of the first operand
    columns: str  # of the second
    summed: str
    output: str


def name_contractions(graph: fx.GraphModule) -> bool:
    """Rewrite every einsum that is a matmul. True if there was one."""
    modified = False
    for node in list(graph.graph.nodes):
        if (
            node.target is not aten.einsum.default
            or len(node.args) != 2
            or node.kwargs.get("path") is not None
        ):
            continue
        equation, operands = node.args
        if (parsed := parse(equation)) is not None and len(operands) == 2:
            rewrite(graph.graph, node, parsed, operands)
            modified = True
    if modified:
        graph.recompile()
    return modified


def parse(text: str) -> Equation | None:
    """None for what is no product of matrices: other numbers of operands, repeated letters, ellipses, lone sums."""
    given, arrow, output = text.replace(" ", "").partition("->")
    operands = given.split(",")
    if not arrow or len(operands) != 2 or not "".join((*operands, output)).isalpha():
        return None
    first, second = operands
    if any(len(set(word)) != len(word) for word in (first, second, output)):
        return None
    shared = [letter for letter in first if letter in second]
    batch = "".join(letter for letter in shared if letter in output)
    summed = "".join(letter for letter in shared if letter not in output)
    rows = "".join(letter for letter in first if letter not in second)
    columns = "".join(letter for letter in second if letter not in first)
    if not (len(summed) == len(rows) == len(columns) == 1) or set(batch + rows + columns) != set(output):
        return None
    return Equation((first, second), batch, rows, columns, summed, output)


def rewrite(graph: fx.Graph, node: fx.Node, equation: Equation, operands: Sequence[fx.Node]) -> None:
    with graph.inserting_before(node):
        factors = []
        for x, letters, last in zip(
            operands, equation.operands, (equation.summed, equation.columns), strict=True
        ):
            own = "".join(letter for letter in letters if letter not in equation.batch)
            x = ordered(graph, x, [letters.index(letter) for letter in equation.batch + own])
            rank = len(letters)
            factors.append(x if own[1] == last else call(graph, aten.transpose.int, x, rank - 2, rank - 1))
        made = equation.batch + equation.rows + equation.columns
        order = [made.index(letter) for letter in equation.output]
        if order == sorted(order):
            node.target, node.args, node.kwargs = aten.matmul.default, tuple(factors), {}
        else:
            product = call(graph, aten.matmul.default, *factors)
            node.target, node.args, node.kwargs = aten.permute.default, (product, order), {}


def ordered(graph: fx.Graph, x: fx.Node, order: list[int]) -> fx.Node:
    """x permuted; `x` itself where that permutes nothing."""
    return x if order == sorted(order) else call(graph, aten.permute.default, x, order)
