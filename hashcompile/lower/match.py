"""Reading a captured graph: shapes, and nodes that change nothing."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from hashcompile.core.layers import COPIES, arguments

aten = torch.ops.aten

CASTS = (aten.to.dtype, aten.to.device, aten.to.dtype_layout, aten._to_copy.default)
VIEWS = (aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints)
SPLITS = (aten.split.Tensor, aten.split_with_sizes.default, aten.split.sizes, aten.chunk.default)


def shape_of(node: Any) -> tuple[str, ...]:
    """Sizes as text: equal text is equal size. Empty for what has no shape, and for a scalar."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return tuple(map(str, value.shape)) if isinstance(value, torch.Tensor) else ()


def dtype_of(node: Any) -> torch.dtype | None:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value.dtype if isinstance(value, torch.Tensor) else None


def is_identity(node: fx.Node) -> bool:
    """Copies, dropout outside training, views to the same shape, slices of everything."""
    if node.target in COPIES:
        return True
    if node.target in CASTS:
        return dtype_of(node) is dtype_of(node.args[0])
    if node.target in (aten.dropout.default, aten.dropout_.default):
        return node.args[2] is False
    if node.target is aten.slice.Tensor and arguments(node)["step"] != 1:
        return False
    same_order = (*VIEWS, aten.expand.default, aten.slice.Tensor)
    return node.target in same_order and shape_of(node) == shape_of(node.args[0])


def source(node: Any) -> Any:
    """What `node` is a copy of, or itself."""
    while isinstance(node, fx.Node) and is_identity(node):
        node = node.args[0]
    return node


def readers(node: fx.Node) -> Iterator[fx.Node]:
    """Who reads the value of `node`, looking through identities."""
    for user in node.users:
        if is_identity(user):
            yield from readers(user)
        else:
            yield user


def only_user(node: fx.Node) -> fx.Node | None:
    """The one reader of `node`, looking through identities; None if there are several."""
    while len(node.users) == 1:
        (user,) = node.users
        if not is_identity(user):
            return user if user.op == "call_function" else None
        node = user
    return None


def swaps(node: Any, first: int, second: int) -> bool:
    """Does `node` exchange these two dimensions, and nothing else?"""
    if not isinstance(node, fx.Node):
        return False
    rank = len(shape_of(node))
    if node.target is aten.mT.default:
        return {first % rank, second % rank} == {rank - 2, rank - 1}
    if node.target is aten.transpose.int:
        return {int(dim) % rank for dim in node.args[1:3]} == {first % rank, second % rank}  # type: ignore[arg-type]
    if node.target is aten.permute.default:
        order = list(range(rank))
        order[first], order[second] = order[second], order[first]
        return [int(dim) % rank for dim in node.args[1]] == order  # type: ignore[union-attr, arg-type]
    return False


def token_major(node: fx.Node) -> tuple[fx.Node, tuple[fx.Node, ...]]:
    """The (B, S, H * D) behind transpose(view(x, [B, S, H, D]), 1, 2), and the nodes that lead from it to `node`.

    `node` itself and no nodes where it is made in another way.
    """
    transposed = source(node)
    view = source(transposed.args[0]) if swaps(transposed, 1, 2) else None
    if not isinstance(view, fx.Node) or view.target not in VIEWS:
        return node, ()
    whole, parts = shape_of(view.args[0]), shape_of(view)
    same = len(whole) == 3 and len(parts) == 4 and whole[:2] == parts[:2] and whole[2].isdigit()
    if not same or int(whole[2]) != int(parts[2]) * int(parts[3]):
        return node, ()
    path = [node]
    while path[-1] is not view:
        path.append(path[-1].args[0])  # type: ignore[arg-type]
    return view.args[0], tuple(path)  # type: ignore[return-value]


def part_of(node: Any) -> tuple[fx.Node, int, int] | None:
    """(x, begin, end) of x[..., begin:end], sliced, split or chunked along the last dim."""
    node = source(node)
    if not isinstance(node, fx.Node) or not shape_of(node)[-1:] or not shape_of(node)[-1].isdigit():
        return None
    last = (-1, len(shape_of(node)) - 1)
    if node.target is aten.slice.Tensor:
        given = arguments(node)
        begin = given["start"] or 0
        if given["dim"] not in last or given["step"] != 1 or not isinstance(begin, int) or begin < 0:
            return None
        return given["self"], begin, begin + int(shape_of(node)[-1])
    if node.target is operator.getitem:
        split: Any = node.args[0]
        i: Any = node.args[1]
        if split.target not in SPLITS or arguments(split)["dim"] not in last:
            return None
        sizes = [int(part.shape[-1]) for part in split.meta["val"]]
        return arguments(split)["self"], sum(sizes[:i]), sum(sizes[: i + 1])
    return None
