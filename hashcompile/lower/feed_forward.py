"""Two layers with an activation between them -> one operator.

Given:  %u = aten.linear(%x, %w1, %b1);  %h = aten.gelu(%u);  %y = aten.linear(%h, %w2, %b2), with no other readers
Result: %y = call_module[up_op](%x, %codes1, ..., %b1, %codes2, ..., %b2)     # com.hashcompile::FeedForward

What lies between the two is the widest tensor of a transformer. The kernel takes some rows through both layers, so that
it never leaves the cache.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace

from torch import fx

from hashcompile.core.onnx_op import DOMAIN, Attribute, OnnxOp
from hashcompile.core.sweep import activation
from hashcompile.lower.chain_op import called
from hashcompile.lower.epilogue import Epilogue, find_epilogue
from hashcompile.lower.pointwise import Activation

OPERATOR = "FeedForward"
SECOND = "_2"  # what the second layer's attributes and constants end in
CONSTANTS = ("codes", "codebook", "scale", "bias")
TYPES = {int: "int", float: "float", str: "string"}  # of attributes, in ONNX's text form


@dataclass(frozen=True)
class FeedForward:
    up: fx.Node
    between: Epilogue  # of `up`: an activation
    down: fx.Node


def find_feed_forwards(
    ops: Mapping[fx.Node, OnnxOp], *, taken: Container[fx.Node]
) -> tuple[FeedForward, ...]:
    """In the order of `ops`; a layer belongs to one at most."""
    found: list[FeedForward] = []
    used: set[fx.Node] = set()
    for up, op in ops.items():
        if up in used or up in taken or op.operator != "CodebookLinear":
            continue
        between = find_epilogue(up, op, taken=taken)
        if between.activation is Activation.NONE or between.residual is not None:
            continue
        if len(between.output.users) != 1:
            continue
        (down,) = between.output.users
        reads = down in ops and ops[down].operator == "CodebookLinear" and activation(down) is between.output
        if reads and down not in used:
            found.append(FeedForward(up, between, down))
            used |= {up, down}
    return tuple(found)


def joined(up: OnnxOp, down: OnnxOp) -> OnnxOp:
    """Both with what follows them, as one operator."""
    attributes = dict[str, Attribute](up.attributes)
    attributes |= {f"{name}{SECOND}": value for name, value in down.attributes.items() if name != "compute"}
    inputs = ", ".join(["X", *CONSTANTS, *given(down, "H", SECOND)[1:]])
    body = f"""
{OPERATOR}<{", ".join(attributes)}>({inputs}) => (Y)
{{
    H = {call(up, "X", "")}
    Y = {call(down, "H", SECOND)}
}}"""
    return replace(
        up,
        operator=OPERATOR,
        overload=f"{up.overload}_then_{down.overload}",
        attributes=attributes,
        body=body,
        out_shape=down.out_shape,
    )


def given(op: OnnxOp, x: str, ending: str) -> list[str]:
    """What the body of one layer reads, as the body of the two names it."""
    formal = op.body.split("(", 1)[1].split(")", 1)[0].split(", ")
    own = (name if name == "residual" else f"{name}{ending}" for name in formal[1:])
    return [x, *own]


def call(op: OnnxOp, x: str, ending: str) -> str:
    """A layer in the body of the two; its attributes are those of the node."""
    attributes = ", ".join(
        f"{name}: {TYPES[type(value)]} = @{name if name == 'compute' else name + ending}"
        for name, value in op.attributes.items()
    )
    return f"{DOMAIN}.{called(op).operator}<{attributes}>({', '.join(given(op, x, ending))})"
