"""Layers with weights: the only operators that take channels in and give other ones out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from hashcompile.core.layers import arguments
from hashcompile.passes.channels.labels import unlabelled
from hashcompile.passes.channels.parameters import Role
from hashcompile.passes.channels.rules.shapes import moved
from hashcompile.passes.channels.trace import Rule, Trace, is_parameter

aten = torch.ops.aten

TRANSPOSES = (aten.t.default, aten.transpose.int, aten.permute.default, aten.numpy_T.default, aten.mT.default)
WEIGHTS: dict[Any, int] = {
    aten.linear.default: 1,
    aten.matmul.default: 1,
    aten.mm.default: 1,
    aten.addmm.default: 2,
}


def linear(trace: Trace, node: fx.Node) -> Tensor:
    given = arguments(node)
    read = trace.labels.channels(trace.of(given["input"]), -1)
    transposed = source_of_transpose(given["weight"])
    weight, dims = (transposed, (1, 0)) if transposed is not None else (given["weight"], (0, 1))
    made = dense(trace, node, weight, read, dims)
    along(trace, made, given["bias"])
    return made.expand(trace.shape(node))


def source_of_transpose(node: Any) -> fx.Node | None:
    """The parameter of two dims that `node` is the transpose of."""
    if not isinstance(node, fx.Node) or node.target not in TRANSPOSES or not is_parameter(node.args[0]):
        return None
    source: Any = node.args[0]
    shape = source.meta["val"].shape
    return source if len(shape) == 2 and shape == node.meta["val"].shape[::-1] else None


def transposed(trace: Trace, node: fx.Node) -> Any:
    """A weight that is only read as one has labels of slices, as it would have without the transpose."""
    if source_of_transpose(node) is not None and all(reads_as_weight(user, node) for user in node.users):
        return unlabelled(trace.shape(node))
    return moved(trace, node)


def reads_as_weight(user: fx.Node, node: fx.Node) -> bool:
    return [i for i, each in enumerate(user.args) if each is node] == [WEIGHTS.get(user.target)]


def dense(trace: Trace, node: fx.Node, weight: fx.Node, read: Tensor, dims: tuple[int, int]) -> Tensor:
    """Labels (N,) of what a weight makes of the channels `read`, (K,); `dims`: where N and K are in it."""
    out, into = dims
    if is_parameter(weight):
        trace.labels.consume(read, trace.slices(weight, into, Role.CONSUMER))
        return trace.slices(weight, out, Role.PRODUCER)
    trace.labels.pin(read, unreadable(trace, weight))
    for source in sources(weight):
        trace.parameters.held(str(source.target)).computes = True
    return trace.labels.channels(trace.of(weight), out)


def unreadable(trace: Trace, weight: fx.Node) -> str:
    """Why slices of a layer's weight cannot go."""
    where = trace.labels.where
    if is_parameter(weight):
        return f"{where} has as many groups as only a run can tell"
    return f"the weight of {where} is " + ("encoded already" if weight.op == "call_module" else "computed")


def sources(node: fx.Node) -> set[fx.Node]:
    """The parameters that a value is computed from; none where it hangs on an input too."""
    found, stack = set(), [node]
    while stack:
        each = stack.pop()
        if each.op == "placeholder":
            return set()
        if is_parameter(each):
            found.add(each)
        stack += each.all_input_nodes
    return found


def along(trace: Trace, channels: Tensor, parameter: fx.Node | None) -> None:
    """`parameter` has an entry for each of the channels."""
    if parameter is not None:
        trace.labels.unify(channels, trace.of(parameter))


def conv(trace: Trace, node: fx.Node) -> Tensor:
    given = arguments(node)
    weight, groups = given["weight"], given["groups"]
    spatial = len(trace.shape(weight)) - 2
    read = trace.labels.channels(trace.of(given["input"]), -spatial - 1)
    if groups == 1:
        made = dense(trace, node, weight, read, (0, 1))
    elif not is_parameter(weight) or not isinstance(groups, int):
        return trace.refuse(node, unreadable(trace, weight))
    else:
        made = trace.slices(weight, 0, Role.PRODUCER)
        of_group = trace.slices(weight, 1, Role.CONSUMER)
        if whole_groups(read, groups):
            keep_groups(trace, read, made, groups)
            trace.labels.pin(of_group, f"{trace.labels.where} loses whole groups")
        else:
            trace.labels.consume(same_in_every_group(trace, read, groups), of_group)
            same_in_every_group(trace, made, groups)
    along(trace, made, given["bias"])
    return made.view(-1, *[1] * spatial).expand(trace.shape(node))


def conv_transpose(trace: Trace, node: fx.Node) -> Tensor:
    given = arguments(node)
    weight, groups = given["weight"], given["groups"]
    spatial = len(trace.shape(weight)) - 2
    read = trace.labels.channels(trace.of(given["input"]), -spatial - 1)
    if groups == 1:
        made = dense(trace, node, weight, read, (1, 0))
    elif not is_parameter(weight) or not isinstance(groups, int):
        return trace.refuse(node, unreadable(trace, weight))
    elif whole_groups(read, groups):  # (C, N / groups, *kernel): dim 0 has the groups one after another
        rows, of_group = trace.slices(weight, 0, Role.PRODUCER), trace.slices(weight, 1, Role.FOLLOWER)
        made = trace.labels.fresh(groups * len(of_group))
        trace.labels.unify(read, rows)
        keep_groups(trace, rows, made, groups)
        trace.labels.pin(of_group, f"{trace.labels.where} loses whole groups")
    else:
        trace.labels.consume(read, trace.slices(weight, 0, Role.CONSUMER))
        same_in_every_group(trace, read, groups)
        made = trace.slices(weight, 1, Role.PRODUCER).repeat(groups)
    along(trace, made, given["bias"])
    return made.view(-1, *[1] * spatial).expand(trace.shape(node))


def whole_groups(read: Tensor, groups: int) -> bool:
    """Does a grouped convolution lose whole groups? Else it loses the same channels of every group."""
    return groups >= len(read) // groups


def keep_groups(trace: Trace, read: Tensor, made: Tensor, groups: int) -> None:
    trace.labels.unify(
        trace.labels.reduce(read.view(groups, -1), [1]), trace.labels.reduce(made.view(groups, -1), [1])
    )


def same_in_every_group(trace: Trace, channels: Tensor, groups: int) -> Tensor:
    return trace.labels.reduce(channels.view(groups, -1), [0]).view(-1)


def embedding(trace: Trace, node: fx.Node) -> Tensor:
    weight = arguments(node)["weight"]
    if not is_parameter(weight):
        return unlabelled(trace.shape(node))
    return trace.slices(weight, 1, Role.PRODUCER).expand(trace.shape(node))


RULES: dict[Any, Rule] = {
    **{each.overloadpacket: transposed for each in TRANSPOSES},
    aten.linear: linear,
    aten.conv1d: conv,
    aten.conv2d: conv,
    aten.conv3d: conv,
    aten.conv_transpose1d: conv_transpose,
    aten.conv_transpose2d: conv_transpose,
    aten.conv_transpose3d: conv_transpose,
    aten.embedding: embedding,
}
