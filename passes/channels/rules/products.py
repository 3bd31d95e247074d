"""Products of two activations: what is summed over is mixed, and the rest is one channel with its partner.

So a head of attention is one unit by itself: its scores mix its queries and keys, and belong to all of its values.

Inside of heads (`Trace.inside_heads`) the scores have no channels. An entry of the values is then a channel like any
other; one of the queries goes with that of the keys which it is multiplied with.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx

from hashcompile.core.layers import arguments
from hashcompile.passes.channels.labels import core, unlabelled
from hashcompile.passes.channels.parameters import Role
from hashcompile.passes.channels.rules.layers import along, dense, source_of_transpose
from hashcompile.passes.channels.rules.table import packets
from hashcompile.passes.channels.trace import Rule, Trace, is_parameter

aten = torch.ops.aten

KEEPS_ZERO = frozenset(
    (
        operator.getitem,
        *packets(
            """view reshape _unsafe_view flatten unflatten expand permute transpose swapaxes movedim t squeeze unsqueeze
            select slice narrow chunk split split_with_sizes unbind contiguous clone alias to _to_copy dropout neg div
            repeat repeat_interleave index roll flip"""
        ),
    )
)


def matmul(trace: Trace, node: fx.Node) -> Tensor:
    """matmul, mm, bmm, and addmm, baddbmm with what they add."""
    operands: Any = node.args[:3]
    *added, a, b = operands
    weight = matrix(trace, b)
    if weight is not None and alike(trace.of(a), range(-len(trace.shape(weight[0])), -2)):
        parameter, out, into = weight
        read = trace.labels.channels(trace.of(a), -1)
        made = dense(trace, node, parameter, read, (out, into))
        if added:
            along(trace, made, added[0])
        return made.expand(trace.shape(node))
    labels = within_heads(trace, node, a, b) if trace.inside_heads else None
    labels = product(trace, trace.of(a), trace.of(b)) if labels is None else labels
    return trace.labels.join(labels, *(trace.of(each) for each in added)).expand(trace.shape(node))


def matrix(trace: Trace, node: Any) -> tuple[fx.Node, int, int] | None:
    """Where a matrix product reads a parameter as it is, be it one matrix or a stack of them, or one matrix transposed:
    it, and its dims of N and K."""
    if is_parameter(node) and (ndim := len(trace.shape(node))) > 1:
        return node, ndim - 1, ndim - 2
    source = source_of_transpose(node)
    return None if source is None else (source, 0, 1)


def alike(labels: Tensor, dims: Iterable[int]) -> bool:
    """Are labels the same all along `dims`, such as those of the experts, each of which has a weight of its own?"""
    small = core(labels)
    return all(small.size(dim) == 1 for dim in dims if -labels.ndim <= dim)


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
    mask = trace.of(given["attn_mask"]) if given["attn_mask"] is not None else None
    if trace.inside_heads and inside(query, -1, -2) and inside(key, -1, -2) and inside(value, -1, -2):
        pair(trace, node, (given["query"], query), (given["key"], key.transpose(-1, -2)))
        if mask is not None:
            trace.labels.pin(mask, f"{trace.labels.where} adds it to the scores of a head")
        return trace.labels.channels(value, -1).expand(trace.shape(node))
    if given["enable_gqa"]:
        repeats = query.size(-3) // key.size(-3)
        key, value = (labels.repeat_interleave(repeats, -3) for labels in (key, value))
    scores = product(trace, query, key.transpose(-1, -2))
    if mask is not None:
        scores = trace.labels.join(scores, mask)
    return product(trace, trace.labels.reduce(scores, [-1]).expand(scores.shape), value)


def within_heads(trace: Trace, node: fx.Node, a: fx.Node, b: fx.Node) -> Tensor | None:
    """A product in which what is summed over may be cut, or the columns; None where it is neither's like."""
    left, right = trace.of(a), trace.of(b)
    if left.ndim < 3 or right.ndim < 3:
        return None
    if inside(left, -1, -2) and inside(right, -2, -1) and core(left).size(-1) > 1:  # scores
        pair(trace, node, (a, left), (b, right))
        return unlabelled(trace.shape(node))
    if core(left).size(-1) == 1 and inside(right, -1, -2):  # what the scores are sums of
        trace.labels.pin(left, f"{trace.labels.where} weighs other channels by it")
        return trace.labels.channels(right, -1).expand(trace.shape(node))
    return None


def inside(labels: Tensor, width: int, length: int) -> bool:
    """Do labels change along the width of a head, and perhaps from head to head, but not along its length?"""
    small = core(labels)
    return small.size(width) > 1 and small.size(length) == 1


def pair(trace: Trace, node: fx.Node, query: tuple[fx.Node, Tensor], key: tuple[fx.Node, Tensor]) -> None:
    """Entry by entry, the same of every head: what is summed over, (..., K) of queries and (..., K, M) of keys.

    A product is zero where the keys are, and so must be what makes these, if the queries are to be of no matter.
    """
    queries, keys = trace.labels.channels(query[1], -1), trace.labels.channels(key[1], -2)
    trace.labels.unify(queries, keys)
    layers = makers(key[0])
    if layers is None:
        trace.labels.pin(
            queries, f"{trace.labels.where} reads keys that are not zero where the layer that makes them is"
        )
    for layer in layers or ():
        given = arguments(layer)
        trace.slices(given["weight"], 0, Role.FACTOR)
        if given["bias"] is not None:
            trace.slices(given["bias"], 0, Role.FACTOR)


def makers(node: Any) -> set[fx.Node] | None:
    """The linear layers of which a value is zero where they are; None where it may be something else."""
    packet = getattr(node.target, "overloadpacket", node.target)
    given = node.args
    if packet in (aten.linear, aten.conv1d, aten.conv2d):
        bias = arguments(node)["bias"]
        return (
            {node}
            if is_parameter(arguments(node)["weight"]) and (bias is None or is_parameter(bias))
            else None
        )
    if packet in KEEPS_ZERO:
        return makers(given[0])
    if packet in (aten.mul, aten.mul_):
        found = [makers(each) for each in given if isinstance(each, fx.Node)]
        return next((layers for layers in found if layers is not None), None)
    parts = (
        given[0] if packet in (aten.cat, aten.stack) else given[:2] if packet in (aten.add, aten.sub) else ()
    )
    found = [makers(each) if isinstance(each, fx.Node) else None for each in parts]
    return None if None in found or not found else set().union(*(layers for layers in found if layers))


def einsum(trace: Trace, node: fx.Node) -> Any:
    given = arguments(node)
    equation = str(given["equation"]).replace(" ", "")
    inputs, arrow, output = equation.partition("->")
    terms = inputs.split(",")
    if "." in equation or not arrow or any(len(set(term)) < len(term) for term in terms):
        return trace.refuse(
            node, f"{trace.labels.where} reads it, and there is no rule for the equation {equation}"
        )
    if (found := layer_in(trace, terms, output, given["tensors"])) is not None:
        place, out, into = found
        term, x = terms[1 - place], given["tensors"][1 - place]
        read = trace.labels.channels(trace.of(x), term.index(terms[place][into]))
        made = dense(trace, node, given["tensors"][place], read, (out, into))
        at = output.index(terms[place][out])
        return made.view(-1, *[1] * (len(output) - at - 1)).expand(trace.shape(node))
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


def layer_in(
    trace: Trace, terms: list[str], output: str, tensors: list[fx.Node]
) -> tuple[int, int, int] | None:
    """Where an equation is a linear layer, such as bnd,de->bne, or one for each expert, such as bnd,xde->bxne: which
    tensor is its weight, and its dims of N and K."""
    for place, other in ((1, 0), (0, 1)) if len(terms) == 2 else ():
        weight, given = terms[place], terms[other]
        summed = [letter for letter in weight if letter not in output]
        made = [letter for letter in weight if letter not in given]
        if not is_parameter(tensors[place]) or is_parameter(tensors[other]) or not made or len(summed) != 1:
            continue
        shared = [position for position, letter in enumerate(given) if letter in weight and letter in output]
        fits = summed[0] in given and set(given) - {summed[0]} <= set(output)
        if fits and alike(trace.of(tensors[other]), shared):
            return place, weight.index(made[-1]), weight.index(summed[0])
    return None


RULES: dict[Any, Rule] = {
    **dict.fromkeys(packets("matmul mm bmm addmm baddbmm"), matmul),
    aten.scaled_dot_product_attention: attention,
    aten.einsum: einsum,
}
