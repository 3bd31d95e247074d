"""What every operator does to labels: one table, operator -> rule."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from hashcompile.passes.channels.rules import layers, norms, pointwise, products, reductions, shapes
from hashcompile.passes.channels.trace import Rule, Trace

RULES: dict[Any, Rule] = {
    **pointwise.RULES,
    **shapes.RULES,
    **reductions.RULES,
    **products.RULES,
    **norms.RULES,
    **layers.RULES,
}


def rule_of(node: fx.Node) -> Rule:
    """The rule of a node's operator, in place or not."""
    target: Any = node.target
    rule = RULES.get(getattr(target, "overloadpacket", target))
    if rule is not None:
        return rule
    if torch.Tag.pointwise in getattr(target, "tags", ()):
        return pointwise.pointwise
    return unknown


def unknown(trace: Trace, node: fx.Node) -> Any:
    return trace.refuse(node, f"{trace.labels.where} reads it, and there is no rule for {node.target}")
