"""Attention in a graph: scaled_dot_product_attention, or the same written out.

    softmax(%q %k' * scale + %mask) %v

with q, k, v: (B, H, S, D), or (B, S, D) of one head, each step read by the next one alone. Keys and values whose heads
are repeated for the queries that share them are taken before that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from hashcompile.core.layers import arguments
from hashcompile.lower.match import VIEWS, dtype_of, shape_of, source, swaps

aten = torch.ops.aten

MASKS = (torch.bool, torch.float32)
PRODUCTS = (aten.matmul.default, aten.bmm.default)


@dataclass(frozen=True)
class Found:
    """An attention in the graph. q, k, v: (B, H, S, D), or all of them (B, S, D)."""

    root: fx.Node  # its value, (B, H, Sq, Dv) or (B, Sq, Dv)
    q: fx.Node
    k: fx.Node
    v: fx.Node
    mask: fx.Node | None
    scale: float
    causal: bool
    safe: bool  # scaled_dot_product_attention's softmax: zeros where nothing is seen

    @property
    def heads(self) -> int:
        return int(by_head(self.q)[1])

    @property
    def kv_heads(self) -> int:
        return int(by_head(self.k)[1])

    @property
    def key_size(self) -> int:
        return int(shape_of(self.q)[-1])

    @property
    def value_size(self) -> int:
        return int(shape_of(self.v)[-1])


def find_attentions(graph: fx.Graph) -> Iterator[Found]:
    """Every attention that the operator can say."""
    for node in list(graph.nodes):
        found = fused_attention(node) or written_out(node)
        if found is not None and fits(found := shared_heads(found)):
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
    if node.target not in PRODUCTS:
        return None
    softmax, v = through(node.args[0]), node.args[1]
    if softmax is None or not is_softmax(softmax) or not lone(softmax):
        return None
    scores = scores_of(softmax.args[0])
    if scores is None or dtype_of(scores[3]) is torch.bool:  # that is a number here: ones and zeros are added
        return None
    q, transposed, scale, mask = scores
    k = source(transposed)
    if not swaps(k, -2, -1):
        return None
    assert isinstance(v, fx.Node) and (mask is None or isinstance(mask, fx.Node))
    return Found(node, q, k.args[0], v, mask, scale, causal=False, safe=False)


def is_softmax(node: fx.Node) -> bool:
    """Along the last dim, in the type of its argument."""
    if node.target is not aten.softmax.int or dtype_of(node) is not dtype_of(node.args[0]):
        return False
    return node.args[1] in (-1, len(shape_of(node)) - 1)


def scores_of(node: Any) -> tuple[fx.Node, Any, float, fx.Node | None] | None:
    """(q, k', factor, mask) of matmul(q, k') * factor, with a mask added to it or without."""
    node = through(node)
    if node is None or not lone(node):
        return None
    if node.target is aten.baddbmm.default and not node.kwargs:
        mask, q, transposed = node.args
        return q, transposed, 1.0, mask
    if node.target is aten.add.Tensor and not node.kwargs:
        for product, mask in (node.args, node.args[::-1]):
            if isinstance(mask, fx.Node) and (found := product_of(product)) is not None:
                return *found, mask
    found = product_of(node)
    return None if found is None else (*found, None)


def product_of(node: Any) -> tuple[fx.Node, Any, float] | None:
    """(a, b, factor) of matmul(a, b), matmul(a, b) * factor or matmul(a, b) / divisor."""
    node, scale = through(node), 1.0
    if node is not None and node.target in (aten.mul.Tensor, aten.div.Tensor) and lone(node):
        factor = node.args[1]
        if not isinstance(factor, float | int) or factor == 0:
            return None
        scale = float(factor) if node.target is aten.mul.Tensor else 1 / float(factor)
        node = through(node.args[0])
    if node is None or node.target not in PRODUCTS or not lone(node):
        return None
    a, b = node.args
    return a, b, scale


def shared_heads(found: Found) -> Found:
    """Keys and values as they are before every head is repeated for the query heads that read it."""
    key, value = repeated(found.k), repeated(found.v)
    if key is None or value is None or shape_of(key)[1] != shape_of(value)[1]:
        return found
    return replace(found, k=key, v=value)


def repeated(node: Any) -> fx.Node | None:
    """x (B, Hkv, S, D) of reshape(expand(unsqueeze(x, 2), [B, Hkv, n, S, D]), [B, Hkv * n, S, D])."""
    node = source(node)
    expanded = source(node.args[0]) if isinstance(node, fx.Node) and node.target in VIEWS else None
    if not isinstance(expanded, fx.Node) or expanded.target is not aten.expand.default:
        return None
    unsqueezed = source(expanded.args[0])
    if not isinstance(unsqueezed, fx.Node) or unsqueezed.target is not aten.unsqueeze.default:
        return None
    x, shape = unsqueezed.args[0], shape_of(expanded)
    if len(shape) != 5 or unsqueezed.args[1] not in (2, -3) or not all(size.isdigit() for size in shape[1:3]):
        return None
    heads = str(int(shape[1]) * int(shape[2]))
    whole = shape_of(node) == (shape[0], heads, *shape[3:])
    return x if whole and shape_of(x) == (*shape[:2], *shape[3:]) else None  # type: ignore[return-value]


def through(node: Any) -> fx.Node | None:
    node = source(node)
    return node if isinstance(node, fx.Node) and node.op == "call_function" else None


def lone(node: fx.Node) -> bool:
    return len(node.users) == 1


def by_head(node: fx.Node) -> tuple[str, ...]:
    """The shape (B, H, S, D) of queries, keys or values; H is 1 where they have no such dim."""
    shape = shape_of(node)
    return (shape[0], "1", *shape[1:]) if len(shape) == 3 else shape


def fits(found: Found) -> bool:
    """Do types and shapes go together, with sizes of heads that are known?"""
    operands = (found.q, found.k, found.v)
    shapes = [by_head(node) for node in operands]
    if len({len(shape_of(node)) for node in operands}) > 1:
        return False
    if any(len(shape) != 4 or not shape[1].isdigit() or not shape[3].isdigit() for shape in shapes):
        return False
    (batch, heads, queries, size), (k_batch, kv_heads, keys, k_size), (v_batch, v_heads, v_keys, _) = shapes
    if not (batch == k_batch == v_batch and kv_heads == v_heads and keys == v_keys and size == k_size):
        return False
    if not int(heads) or int(kv_heads) < 1 or int(heads) % int(kv_heads):
        return False
    if any(dtype_of(node) is not torch.float32 for node in operands):
        return False
    if found.mask is None:
        return True
    shape = shape_of(found.mask)
    whole = (batch, heads, queries, keys) if len(shape_of(found.q)) == 4 else (batch, queries, keys)
    if dtype_of(found.mask) not in MASKS or not 1 <= len(shape) <= len(whole):
        return False
    return all(size in ("1", of) for size, of in zip(shape, whole[len(whole) - len(shape) :], strict=True))
