"""Attention and the transposes around it -> one operator.

Given:  %q = transpose(view(%a (B, S, H * D), [B, S, H, D]), 1, 2); %k, %v likewise
        %y = scaled_dot_product_attention(%q, %k, %v, %mask);  %z = reshape(transpose(%y, 1, 2), [B, S, H * D])
Result: %z = call_module[attention](%a, %b, %c, %mask)          # com.hashcompile::Attention

and call_module[attention](%abc, None, None, %mask) where %a, %b and %c are slices of one tensor. What stands between
view and transpose (a rotary embedding) stays; that input is then taken as (B, H, S, D).
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
from hashcompile.lower.match import VIEWS, dtype_of, only_user, part_of, shape_of, swaps, token_major
from hashcompile.lower.symbolic import SymbolicOp, call_op

aten = torch.ops.aten


def fuse_attentions(graph: fx.GraphModule, compute: Compute) -> list[OnnxOp]:
    """Replace every attention; the operators that were put in."""
    ops = [replace(graph, found, compute) for found in find_attentions(graph.graph)]
    graph.graph.eliminate_dead_code()
    return ops


def replace(graph: fx.GraphModule, found: Found, compute: Compute) -> OnnxOp:
    mask = None if found.mask is None else unexpanded(found.mask)
    inputs: list[fx.Node | None] = [token_major(node)[0] for node in (found.q, found.k, found.v)]
    if (whole := packed(found, inputs)) is not None:
        inputs = [whole]
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
    if mask is not None:
        inputs += [None] * (3 - len(inputs)) + [with_heads(graph, found, mask)]
    put(graph, found.root, op, inputs)
    return op


def packed(found: Found, inputs: Sequence[fx.Node | None]) -> fx.Node | None:
    """The tensor (B, S, (H + 2 Hkv) * D) of which queries, keys and values are parts, one behind the other."""
    if found.key_size != found.value_size:
        return None
    parts = [part_of(node) for node in inputs]
    ends = [found.heads, found.heads + found.kv_heads, found.heads + 2 * found.kv_heads]
    wanted = [
        (begin * found.key_size, end * found.key_size) for begin, end in zip([0, *ends], ends, strict=False)
    ]
    whole = parts[0][0] if parts[0] else None
    if whole is None or shape_of(whole)[2:] != (str(ends[-1] * found.key_size),):
        return None
    return whole if parts == [(whole, *each) for each in wanted] else None


def with_heads(graph: fx.GraphModule, found: Found, mask: fx.Node) -> fx.Node:
    """A mask (B, Sq, Sk) of an attention without heads as (B, 1, Sq, Sk)."""
    if len(shape_of(found.root)) == 4 or len(shape_of(mask)) < 3:
        return mask
    with graph.graph.inserting_before(found.root):
        node = graph.graph.call_function(aten.unsqueeze.default, (mask, 1))
    node.meta = {"val": mask.meta["val"].unsqueeze(1)}
    return node


def put(graph: fx.GraphModule, root: fx.Node, op: OnnxOp, inputs: Sequence[fx.Node | None]) -> None:
    """The operator, whose value is (B, S, H * D), in the place of `root` (B, H, S, D) and the way back from it, or of
    `root` (B, S, D) itself."""
    with graph.graph.inserting_before(root):
        call = call_op(graph, f"{root.name}_op", SymbolicOp(op, torch.float32), inputs)
    if len(shape_of(root)) == 3:
        call.meta = dict(root.meta)
        root.replace_all_uses_with(call)
        return
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
