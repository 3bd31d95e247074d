"""Attention and the transposes around it -> one operator.

Given:  %q = transpose(view(%a (B, S, H * D), [B, S, H, D]), 1, 2); %k, %v likewise
        %y = scaled_dot_product_attention(%q, %k, %v, %mask);  %z = reshape(transpose(%y, 1, 2), [B, S, H * D])
Result: %z = call_module[attention](%a, %b, %c, %mask)          # com.hashcompile::Attention

The same written out, as softmax(%q %k' * scale + %mask) %v, is recognised too. What stands between view and transpose
(a rotary embedding) stays; that input is then taken as (B, H, S, D).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from hashcompile.core.layers import arguments
from hashcompile.core.onnx_op import OnnxOp
from hashcompile.lower.attention_op import Attention
from hashcompile.lower.masks import unexpanded
from hashcompile.lower.match import VIEWS, dtype_of, only_user, shape_of, source, swaps
from hashcompile.lower.symbolic import SymbolicOp

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


def fuse_attention(graph: fx.GraphModule) -> list[OnnxOp]:
    """Replace every attention that the operator can say. The operators that were put in."""
    ops = []
    for node in list(graph.graph.nodes):
        found = fused_attention(node) or written_out(node)
        if found is not None and (op := replace(graph, found)) is not None:
            ops.append(op)
    graph.graph.eliminate_dead_code()
    return ops


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


def replace(graph: fx.GraphModule, found: Found) -> OnnxOp | None:
    shapes = [shape_of(node) for node in (found.q, found.k, found.v)]
    if any(len(shape) != 4 or not shape[1].isdigit() or not shape[3].isdigit() for shape in shapes):
        return None
    (batch, heads, _, size), (k_batch, kv_heads, keys, k_size), (v_batch, v_heads, v_keys, value_size) = (
        shapes
    )
    fits = batch == k_batch == v_batch and kv_heads == v_heads and keys == v_keys and size == k_size
    if not fits or not int(heads) or int(kv_heads) < 1 or int(heads) % int(kv_heads):
        return None
    if any(dtype_of(node) is not torch.float32 for node in (found.q, found.k, found.v)):
        return None
    mask = found.mask
    if mask is not None:
        if dtype_of(mask) not in MASKS or not 1 <= len(shape_of(mask)) <= 4:
            return None
        wanted = (batch, heads, shapes[0][2], keys)
        shape = shape_of(mask)
        if any(size not in ("1", whole) for size, whole in zip(shape, wanted[4 - len(shape) :], strict=True)):
            return None
        mask = unexpanded(mask)
    inputs = [token_major(node) for node in (found.q, found.k, found.v)]
    op = Attention(
        int(heads),
        int(kv_heads),
        int(size),
        int(value_size),
        tuple(len(shape_of(node)) for node in inputs),
        found.scale,
        found.causal,
        found.safe,
        dtype_of(mask),
    ).op()
    put(graph, found.root, op, [*inputs, *([mask] if mask is not None else [])])
    return op


def token_major(node: fx.Node) -> fx.Node:
    """The (B, S, H * D) behind transpose(view(x, [B, S, H, D]), 1, 2); `node` itself where there is none."""
    transposed = source(node)
    if not swaps(transposed, 1, 2):
        return node
    view = source(transposed.args[0])
    if not isinstance(view, fx.Node) or view.target not in VIEWS:
        return node
    whole, parts = shape_of(view.args[0]), shape_of(view)
    same = len(whole) == 3 and len(parts) == 4 and whole[:2] == parts[:2] and whole[2].isdigit()
    return view.args[0] if same and int(whole[2]) == int(parts[2]) * int(parts[3]) else node  # type: ignore[return-value]


def put(graph: fx.GraphModule, root: fx.Node, op: OnnxOp, inputs: Sequence[fx.Node]) -> None:
    """The operator, whose value is (B, S, H * D), in the place of `root` (B, H, S, D) and the way back from it."""
    name = f"{root.name}_op"
    graph.add_submodule(name, SymbolicOp(op, torch.float32))
    with graph.graph.inserting_before(root):
        call = graph.graph.call_module(name, tuple(inputs))
    back = only_user(root)
    joined = only_user(back) if back is not None and swaps(back, 1, 2) else None
    batch, heads, queries, size = shape_of(root)
    flat = (batch, queries, str(int(heads) * int(size)))
    if joined is not None and joined.target in VIEWS and shape_of(joined) == flat:
        call.meta = dict(joined.meta)
        joined.replace_all_uses_with(call)
        return
    call.meta = dict(root.meta) | {"val": root.meta["val"].transpose(1, 2).flatten(2)}
    with graph.graph.inserting_before(root):
        sizes = [graph.graph.call_function(aten.sym_size.int, (call, dim)) for dim in (0, 1)]
        split = graph.graph.call_function(aten.view.default, (call, [*sizes, int(heads), int(size)]))
        by_head = graph.graph.call_function(aten.transpose.int, (split, 1, 2))
    by_head.meta = dict(root.meta)
    root.replace_all_uses_with(by_head)
