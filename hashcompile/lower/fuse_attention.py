"""Attention and the transposes around it -> one operator.

Given:  %q = transpose(view(%a (B, S, H * D), [B, S, H, D]), 1, 2); %k, %v likewise
        %y = scaled_dot_product_attention(%q, %k, %v, %mask);  %z = reshape(transpose(%y, 1, 2), [B, S, H * D])
Result: %z = call_module[attention](%a, %b, %c, %mask)          # com.hashcompile::Attention

What stands between view and transpose (a rotary embedding) stays; that input is then taken as (B, H, S, D).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from hashcompile.core.method import Compute
from hashcompile.core.onnx_op import OnnxOp
from hashcompile.lower.attention import Found, find_attentions
from hashcompile.lower.attention_op import Attention
from hashcompile.lower.masks import unexpanded
from hashcompile.lower.match import VIEWS, dtype_of, only_user, shape_of, source, swaps
from hashcompile.lower.symbolic import SymbolicOp

aten = torch.ops.aten


def fuse_attentions(graph: fx.GraphModule, compute: Compute) -> list[OnnxOp]:
    """Replace every attention; the operators that were put in."""
    ops = [replace(graph, found, compute) for found in find_attentions(graph.graph)]
    graph.graph.eliminate_dead_code()
    return ops


def replace(graph: fx.GraphModule, found: Found, compute: Compute) -> OnnxOp:
    mask = None if found.mask is None else unexpanded(found.mask)
    inputs = [token_major(node) for node in (found.q, found.k, found.v)]
    op = Attention(
        found.heads,
        found.kv_heads,
        found.key_size,
        found.value_size,
        tuple(len(shape_of(node)) for node in inputs),
        found.scale,
        found.causal,
        found.safe,
        dtype_of(mask),
        compute,
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
