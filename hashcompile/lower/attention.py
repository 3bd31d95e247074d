"""Attention in a graph: scaled_dot_product_attention, or the same written out.

    softmax(%q %k' * scale + %mask) %v

with q, k, v: (B, H, S, D), each step read by the next one alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from hashcompile.core.layers import arguments
from hashcompile.lower.match import dtype_of, shape_of, source, swaps

aten = torch.ops.aten

MASKS = (torch.bool, torch.float32)


@dataclass(frozen=True)
class Found:
    """An attention in the graph. q, k, v: (B, H, S, D)."""

    root: fx.Node  # its value, (B, H, Sq, Dv)
    q: fx.Node
    k: fx.Node
    v: fx.Node
    mask: fx.Node | None
    scale: float
    causal: bool
    safe: bool  # scaled_dot_product_attention's softmax: zeros where nothing is seen

    @property
    def heads(self) -> int:
        return int(shape_of(self.q)[1])

    @property
    def kv_heads(self) -> int:
        return int(shape_of(self.k)[1])

    @property
    def key_size(self) -> int:
        return int(shape_of(self.q)[3])

    @property
    def value_size(self) -> int:
        return int(shape_of(self.v)[3])


def find_attentions(graph: fx.Graph) -> Iterator[Found]:
    """Every attention that the operator can say."""
    for node in list(graph.nodes):
        found = fused_attention(node) or written_out(node)
        if found is not None and fits(found):
            yield found


def fused_attention(node: fx.Node) -> Found | None:
    if node.target is not aten.scaled_dot_product_attention.default:
        return None
    given = arguments(node)
    q, k, v, mask = (given[name] for name in ("query", "key", "value", "attn_mask"))
    scale = given["scale"]
    if given["dropout_p"] or not (scale is None or isinstance(scale, float | int)):
        return None
    size = shape_of(q)[-1:]
    if scale is None:
        if not size or not size[0].isdigit() or size[0] == "0":
            return None
        scale = 1 / math.sqrt(int(size[0]))
    assert isinstance(q, fx.Node) and isinstance(k, fx.Node) and isinstance(v, fx.Node)
    assert mask is None or isinstance(mask, fx.Node)
    return Found(node, q, k, v, mask, float(scale), bool(given["is_causal"]), safe=True)


def written_out(node: fx.Node) -> Found | None:
    """matmul(softmax(matmul(q, k') * scale + mask), v), each step read by the next one alone."""
    if node.target is not aten.matmul.default:
        return None
    softmax, v = through(node.args[0]), node.args[1]
    if softmax is None or softmax.target is not aten.softmax.int or not lone(softmax):
        return None
    if softmax.args[1] not in (-1, 3) or len(softmax.args) > 2 or softmax.kwargs:
        return None
    scores, mask, scale = through(softmax.args[0]), None, 1.0
    if scores is not None and scores.target is aten.add.Tensor and not scores.kwargs and lone(scores):
        left, right = scores.args
        if isinstance(left, fx.Node) and isinstance(right, fx.Node):
            first = product_of(left) is not None
            scores, mask = through(left if first else right), right if first else left
            if dtype_of(mask) is torch.bool:  # here it is a number: ones and zeros are added
                return None
    if scores is None or not lone(scores):
        return None
    if (scaled := product_of(scores)) is None:
        return None
    product, scale = scaled
    q, transposed = product.args
    k = source(transposed)
    if not swaps(k, 2, 3) or len(shape_of(k)) != 4:
        return None
    assert isinstance(q, fx.Node) and isinstance(v, fx.Node)
    return Found(node, q, k.args[0], v, mask, scale, causal=False, safe=False)


def product_of(node: Any) -> tuple[fx.Node, float] | None:
    """(matmul, factor) behind matmul(...), matmul(...) * factor or matmul(...) / divisor."""
    node, scale = through(node), 1.0
    if node is not None and node.target in (aten.mul.Tensor, aten.div.Tensor) and lone(node):
        factor = node.args[1]
        if not isinstance(factor, float | int) or factor == 0:
            return None
        scale = float(factor) if node.target is aten.mul.Tensor else 1 / float(factor)
        node = through(node.args[0])
    if node is None or node.target is not aten.matmul.default or not lone(node):
        return None
    return node, scale


def through(node: Any) -> fx.Node | None:
    node = source(node)
    return node if isinstance(node, fx.Node) and node.op == "call_function" else None


def lone(node: fx.Node) -> bool:
    return len(node.users) == 1


def fits(found: Found) -> bool:
    """Do types and shapes go together, with sizes of heads that are known?"""
    shapes = [shape_of(node) for node in (found.q, found.k, found.v)]
    if any(len(shape) != 4 or not shape[1].isdigit() or not shape[3].isdigit() for shape in shapes):
        return False
    (batch, heads, queries, size), (k_batch, kv_heads, keys, k_size), (v_batch, v_heads, v_keys, _) = shapes
    if not (batch == k_batch == v_batch and kv_heads == v_heads and keys == v_keys and size == k_size):
        return False
    if not int(heads) or int(kv_heads) < 1 or int(heads) % int(kv_heads):
        return False
    if any(dtype_of(node) is not torch.float32 for node in (found.q, found.k, found.v)):
        return False
    if found.mask is None:
        return True
    shape, whole = shape_of(found.mask), (batch, heads, queries, keys)
    if dtype_of(found.mask) not in MASKS or not 1 <= len(shape) <= 4:
        return False
    return all(size in ("1", of) for size, of in zip(shape, whole[4 - len(shape) :], strict=True))
