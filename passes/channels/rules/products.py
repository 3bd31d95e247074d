"""Products of two activations: what is summed over is mixed, and the rest is one channel with its partner.

So a head of attention is one unit by itself: its scores mix its queries and keys, and belong to all of its values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from hashcompile.core.layers import arguments
from hashcompile.passes.channels.rules.layers import along, dense
from hashcompile.passes.channels.rules.table import packets
from hashcompile.passes.channels.trace import Rule, Trace, is_parameter

aten = torch.ops.aten


def matmul(trace: Trace, node: fx.Node) -> Tensor:
    """matmul, mm, bmm, and addmm, baddbmm with what they add."""
    operands: Any = node.args[:3]
    *added, a, b = operands
    weight = matrix(trace, b)
    if weight is not None:
        parameter, out, into = weight
        read = trace.labels.channels(trace.of(a), -1)
        made = dense(trace, node, parameter, read, (out, into))
        if added:
            along(trace, made, added[0])
        return made.expand(trace.shape(node))
    labels = product(trace, trace.of(a), trace.of(b))
    return trace.labels.join(labels, *(trace.of(each) for each in added)).expand(trace.shape(node))


def matrix(trace: Trace, node: Any) -> tuple[fx.Node, int, int] | None:
    """Where a matrix product reads a parameter of two dims as it is or transposed: it, and its dims of N and K."""
    if is_parameter(node) and len(trace.shape(node)) == 2:
        return node, 1, 0
    flips = (aten.t.default, aten.transpose.int, aten.permute.default, aten.numpy_T.default)
    if isinstance(node, fx.Node) and node.target in flips and is_parameter(node.args[0]):
        source: Any = node.args[0]
        if len(trace.shape(source)) == 2 and trace.shape(source) == trace.shape(node)[::-1]:
            return source, 0, 1
    return None


def product(trace: Trace, a: Tensor, b: Tensor) -> Tensor:
    """Labels (..., N, M) of (..., N, K) times (..., K, M)."""
    vectors = a.ndim == 1, b.ndim == 1
    a = a.unsqueeze(0) if vectors[0] else a
    b = b.unsqueeze(1) if vectors[1] else b
    labels = trace.labels.join(trace.labels.reduce(a, [-1]), trace.labels.reduce(b, [-2]), hard=True)
    labels = labels.squeeze(-1) if vectors[1] else labels
    return labels.squeeze(-1 if vectors[1] else -2) if vectors[0] else labels


def attention(trace: Trace, node: fx.Node) -> Tensor:
    """scaled_dot_product_attention of (..., heads, length, width)."""
    given = arguments(node)
    query, key, value = (trace.of(given[name]) for name in ("query", "key", "value"))
    if given["enable_gqa"]:
        repeats = query.size(-3) // key.size(-3)
        key, value = (labels.repeat_interleave(repeats, -3) for labels in (key, value))
    scores = product(trace, query, key.transpose(-1, -2))
    if given["attn_mask"] is not None:
        scores = trace.labels.join(scores, trace.of(given["attn_mask"]))
    return product(trace, trace.labels.reduce(scores, [-1]).expand(scores.shape), value)


def einsum(trace: Trace, node: fx.Node) -> Any:
    given = arguments(node)
    equation = str(given["equation"]).replace(" ", "")
    inputs, arrow, output = equation.partition("->")
    terms = inputs.split(",")
    if "." in equation or not arrow or any(len(set(term)) < len(term) for term in terms):
        return trace.refuse(node, f"{node.name} reads it, and there is no rule for the equation {equation}")
    aligned = []
    for term, labels in zip(terms, trace.of(given["tensors"]), strict=True):
        labels = trace.labels.reduce(labels, [i for i, letter in enumerate(term) if letter not in output])
        letters = [letter for letter in term if letter in output]
        labels = labels.squeeze([i for i, letter in enumerate(term) if letter not in output] or [])
        labels = labels.permute([letters.index(letter) for letter in output if letter in letters])
        for position, letter in enumerate(output):
            if letter not in letters:
                labels = labels.unsqueeze(position)
        aligned.append(labels)
    return trace.labels.join(*aligned, hard=True).expand(trace.shape(node))


RULES: dict[Any, Rule] = {
    **dict.fromkeys(packets("matmul mm bmm addmm baddbmm"), matmul),
    aten.scaled_dot_product_attention: attention,
    aten.einsum: einsum,
}
