"""Element by element, with broadcasting; and what leaves a value as it is."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx

from hashcompile.core.layers import arguments
from hashcompile.passes.channels.labels import unlabelled
from hashcompile.passes.channels.rules.table import packets
from hashcompile.passes.channels.trace import CONSTANTS, Rule, Trace

aten = torch.ops.aten

MOST = 1 << 20  # labels of a constant; a larger one has no channels


def pointwise(trace: Trace, node: fx.Node) -> Tensor:
    operands = [trace.of(each) for each in node.all_input_nodes if trace.is_tensor(each)]
    labels = trace.labels.join(*operands).expand(trace.shape(node))
    if writes(node):
        overwrite(trace, node, labels)
    return labels


def writes(node: fx.Node) -> bool:
    return bool(node.target._schema.is_mutable)  # type: ignore[union-attr]


def overwrite(trace: Trace, node: fx.Node, labels: Tensor) -> None:
    """The memory of the first argument, which other values may share, holds the result from now on."""
    before: Any = node.args[0]
    trace.labels.unify(trace.of(before).expand(labels.shape), labels)


def prelu(trace: Trace, node: fx.Node) -> Tensor:
    given = arguments(node)
    labels, slope = trace.of(given["self"]), trace.of(given["weight"])
    return trace.labels.join(
        labels, slope.view(1, -1, *[1] * (labels.ndim - 2)) if labels.ndim > 1 else slope
    )


def glu(trace: Trace, node: fx.Node) -> Tensor:
    given = arguments(node)
    return trace.labels.join(*trace.of(given["self"]).chunk(2, int(given["dim"])))


def copy(trace: Trace, node: fx.Node) -> Tensor:
    """copy_(a, b): b, in the memory and the shape of a."""
    into, source = (trace.of(each) for each in node.args[:2])
    trace.labels.unify(into, source.expand(into.shape))
    return into


def fill(trace: Trace, node: fx.Node) -> Tensor:
    """One number all over, in the channels of the first argument: the value of what goes does not matter."""
    first: Any = node.args[0]
    return trace.of(first).expand(trace.shape(node))


def constant(trace: Trace, node: fx.Node) -> Tensor:
    """zeros, full ...: any part may go together with what it stands beside, such as the first state of a recurrence.

    Labels change along literal sizes only: a symbolic one is that of a batch.
    """
    given, shape = arguments(node), trace.shape(node)
    literal = [size if isinstance(each, int) else 1 for each, size in zip(given["size"], shape, strict=True)]
    if node in trace.facts.values or not 1 < math.prod(literal) <= MOST:
        return unlabelled(shape)
    return trace.labels.fresh(*literal).expand(shape)


def put(trace: Trace, node: fx.Node) -> Any:
    """index_put, x[mask] = number: the value of what goes does not matter, and the mask is cut as `x` is."""
    given = arguments(node)
    mask, number = given["indices"][0], given["values"]
    masked = mask is not None and mask.meta["val"].dtype == torch.bool
    if not masked or trace.shape(mask) != trace.shape(given["self"]) or trace.shape(number) not in ((), (1,)):
        return trace.refuse(node, f"{trace.labels.where} writes to places in it")
    labels = trace.labels.join(*(trace.of(each) for each in (given["self"], mask, number)))
    if writes(node):
        overwrite(trace, node, labels)
    return labels


RULES: dict[Any, Rule] = {
    **dict.fromkeys(
        packets(
            """dropout feature_dropout alpha_dropout feature_alpha_dropout hardswish hardsigmoid hardtanh relu6 celu
            selu elu silu mish softplus log_sigmoid leaky_relu rrelu hardshrink softshrink threshold clamp clamp_min
            clamp_max where masked_fill contiguous clone alias detach lift_fresh_copy to _to_copy type_as float double
            where addcmul addcdiv lerp detach"""
        ),
        pointwise,
    ),
    aten.prelu: prelu,
    aten.glu: glu,
    aten.copy_: copy,
    **dict.fromkeys(
        packets("fill zero zeros_like ones_like full_like empty_like rand_like randn_like"), fill
    ),
    **dict.fromkeys(CONSTANTS, constant),
    **dict.fromkeys(packets("index_put _unsafe_index_put"), put),
}
