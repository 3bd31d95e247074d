"""Images between layers of ours -> channels last, as the kernels read and write them: nobody copies them to and fro.

Given:  %y = CodebookConv(%x (B, C, H, W));  %s = aten.sigmoid(%y);  %z = CodebookConv(%s)
Result: %y = CodebookConv[channels_last=2](%x);  %s = aten.sigmoid(%y (B, H, W, N))
        %z = CodebookConv[channels_last=1](%s)

Convolutions in fp32 can do that. A pool of such an image becomes an operator of ours; what is pointwise, and a
concatenation of channels, means the same in either order. Whoever else reads such an image gets it permuted. No ONNX
file holds these nodes: its function bodies have the channels second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import fx

from hashcompile.core.method import CODES
from hashcompile.core.onnx_op import Attribute, OnnxOp
from hashcompile.lower.match import shape_of
from hashcompile.lower.pool_op import KINDS, OPERATOR, pool_op
from hashcompile.lower.symbolic import SymbolicOp, call_op
from hashcompile.lower.windows import match_window

aten = torch.ops.aten
ATTRIBUTE = "channels_last"
X, Y = 1, 2  # its bits: HC_LAST_X, HC_LAST_Y
CHANNELS_SECOND = (0, 3, 1, 2)
RESIDUAL = 5  # its place among the inputs of a convolution

Images = dict[fx.Node, fx.Node]  # a value -> the same with channels last


def keep_channels_last(graph: fx.GraphModule, pools: bool = True) -> None:
    """Rewrite all of `graph` that qualifies; `pools`: by operators of ours."""
    images: Images = {}
    useful = read_by_ours(graph, pools)
    for node in list(graph.graph.nodes):
        image = convolved(graph, node, images)
        if image is None and node in useful:
            image = (pooled(graph, node, images) if pools else None) or moved(graph, node, images)
        if image is not None:
            put_back(graph, image, node, images)
    graph.graph.eliminate_dead_code()
    for image in images.values():
        settle(graph, image)


def read_by_ours(graph: fx.GraphModule, pools: bool) -> set[fx.Node]:
    """What has a way to a convolution or a pool of ours through operators that leave the order of dims free."""
    useful: set[fx.Node] = set()
    for node in reversed(graph.graph.nodes):
        pooled = pools and any(map(is_pool, (node, *node.users)))
        convolved = any(convolution(graph, user) for user in node.users)
        if pooled or convolved or any(user in useful and keeps_places(user) for user in node.users):
            useful.add(node)
    return useful


def convolution(graph: fx.GraphModule, node: fx.Node) -> OnnxOp | None:
    """The operator of a convolution of images in fp32."""
    module = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
    if not isinstance(module, SymbolicOp) or module.op.operator != "CodebookConv":
        return None
    attributes = module.op.attributes
    flat = len(cast("tuple[int, ...]", attributes["kernel_shape"])) == 2
    return module.op if flat and attributes["compute"] != CODES["int8"] else None


def writes_channels_last(operator: str, attributes: Mapping[str, Attribute]) -> bool:
    """Does a node of ours write an image with channels last?"""
    flags = attributes.get(ATTRIBUTE, 0)
    return operator == OPERATOR or (isinstance(flags, int) and bool(flags & Y))


def is_pool(node: fx.Node) -> bool:
    step = match_window(node, {})
    return step is not None and step.kind in KINDS and len(shape_of(step.source)) == 4


def keeps_places(node: fx.Node) -> bool:
    """Does `node` compute every place of an image, or every pixel, from the same one of all that it reads?"""
    target: Any = node.target
    joins = target is aten.cat.default and tuple(node.args[1:]) == (1,)
    return joins or torch.Tag.pointwise in getattr(target, "tags", ())


def convolved(graph: fx.GraphModule, node: fx.Node, images: Images) -> fx.Node | None:
    """Let a convolution read images where they are, and write one, which is `node`; None where its residual is none."""
    op = convolution(graph, node)
    if op is None:
        return None
    flags, (x, *rest) = 0, cast("tuple[fx.Node, ...]", node.args)
    if x in images:
        flags |= X
    residual = rest[RESIDUAL - 1 :]
    if all(each in images for each in residual):
        flags |= Y
        rest[RESIDUAL - 1 :] = [images[each] for each in residual]
    node.args = (images.get(x, x), *rest)
    lay_out(graph, node, op, flags)
    return node if flags & Y else None


def lay_out(graph: fx.GraphModule, node: fx.Node, op: OnnxOp, flags: int) -> None:
    """Let `node` call `op`, whose rule for shapes has the channels second, with other orders of dims."""
    rule = op.out_shape

    def out_shape(x: Any) -> tuple[Any, ...]:
        batch, *size = x.shape
        batch, rows, *size = rule(Sized((batch, size[2], *size[:2]) if flags & X else x.shape))
        return (batch, *size, rows) if flags & Y else (batch, rows, *size)

    module = cast(SymbolicOp, graph.get_submodule(str(node.target)))
    module.op = replace(op, attributes={**op.attributes, ATTRIBUTE: flags}, out_shape=out_shape)
    node.meta[ATTRIBUTE] = (op, flags)


@dataclass(frozen=True)
class Sized:
    """What a rule for shapes reads of a tensor."""

    shape: tuple[Any, ...]


def pooled(graph: fx.GraphModule, node: fx.Node, images: Images) -> fx.Node | None:
    """The operator for a pool of an image, in front of `node`."""
    step = match_window(node, {}) if is_pool(node) else None
    if step is None or step.source not in images:
        return None
    with graph.graph.inserting_before(node):
        call = call_op(
            graph, f"{node.name}_op", SymbolicOp(pool_op(step), torch.float32), (images[step.source],)
        )
    if len(shape_of(node)) == 4:
        call.meta = dict(node.meta)
    return call


def moved(graph: fx.GraphModule, node: fx.Node, images: Images) -> fx.Node | None:
    """The same operator on images, in front of `node`."""
    if not keeps_places(node) or not all(read in images for read in node.all_input_nodes):
        return None
    with graph.graph.inserting_before(node):
        copy = graph.graph.node_copy(node, images.__getitem__)
    if node.target is aten.cat.default:
        copy.args = (copy.args[0], 3)
    return copy


def put_back(graph: fx.GraphModule, image: fx.Node, value: fx.Node, images: Images) -> None:
    """Let all that reads `value` read `image` in the order of dims of `value`."""
    with graph.graph.inserting_after(image):
        if len(shape_of(value)) == 2:  # an average that drops the pixels' dims
            first = graph.graph.call_function(aten.flatten.using_ints, (image, 1))
        else:
            first = graph.graph.call_function(aten.permute.default, (image, CHANNELS_SECOND))
            images[first] = image
    first.meta = {"val": value.meta["val"]}
    value.replace_all_uses_with(first, delete_user_cb=lambda user: user is not first)


def settle(graph: fx.GraphModule, image: fx.Node) -> None:
    """Let a convolution write the channels second where that is all that is wanted."""
    if ATTRIBUTE not in image.meta or len(image.users) != 1 or len(image.args) > RESIDUAL:
        return
    (user,) = image.users
    if user.target is aten.permute.default:
        op, flags = image.meta[ATTRIBUTE]
        user.replace_all_uses_with(image)
        graph.graph.erase_node(user)
        lay_out(graph, image, op, flags & ~Y)
