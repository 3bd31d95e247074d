"""Conv . BatchNorm -> Conv, for encoded weights: the row scale takes the factor, the bias takes the rest.

Given:  %w = call_module[conv.weight]()
        %y = aten.conv2d(%x, %w, %b)
        %z = aten.batch_norm(%y, gamma, beta, mean, var)
Result: %w = call_module[conv.weight]()
        %z = aten.conv2d(%x, %w, %b')

with f = gamma / sqrt(var + eps), the code's row n scaled by f[n], and b' = (b - mean) * f + beta.
Codes and tables stay as they are. Where dense layers are folded too, the rows of their weight take the factor.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from hashcompile.core.encoded import EncodedWeight
from hashcompile.core.graph import STANDS_FOR, replace_module
from hashcompile.core.layers import CONSUMERS, Kind, arguments, attribute, channels_second, unused
from hashcompile.core.rows import RowView

aten = torch.ops.aten


def fold_batch_norm(graph: fx.GraphModule, dense: bool = False) -> bool:
    """Fold every batch norm that is in evaluation mode and alone behind an encoded layer, or a `dense` one. True if any
    was."""
    modified = False
    for norm in list(graph.graph.nodes):
        if norm.op == "call_function" and norm.target is aten.batch_norm.default:
            modified |= fold(graph, norm, dense)
    if modified:
        graph.recompile()
    return modified


def fold(graph: fx.GraphModule, norm: fx.Node, dense: bool) -> bool:
    given = arguments(norm)
    layer = given["input"]
    if given["training"] or given["running_mean"] is None or len(layer.users) > 1:
        return False
    if layer.target not in CONSUMERS or CONSUMERS[layer.target][0] not in (Kind.CONV, Kind.CONV_TRANSPOSE):
        return False
    weight = layer.args[1]
    if weight.op not in ("call_module", *(("get_attr",) if dense else ())) or len(weight.users) > 1:
        return False
    held = attribute(graph, weight.target)
    groups = arguments(layer)["groups"] if CONSUMERS[layer.target][0] is Kind.CONV_TRANSPOSE else 0
    view = held.view if isinstance(held, EncodedWeight) else RowView(tuple(held.shape), groups)
    if not channels_second(layer, view.shape):
        return False
    operands = [given[name] for name in ("weight", "bias", "running_mean", "running_var")]
    bias_node = arguments(layer)["bias"]
    if any(node is not None and node.op != "get_attr" for node in (*operands, bias_node)):
        return False
    gamma, beta, mean, variance, bias = (
        None if node is None else attribute(graph, node.target).detach().double()
        for node in (*operands, bias_node)
    )
    assert mean is not None and variance is not None
    factor = torch.rsqrt(variance + given["eps"])
    factor = factor if gamma is None else factor * gamma
    shift = -mean * factor if bias is None else (bias - mean) * factor
    shift = shift if beta is None else shift + beta

    if isinstance(held, EncodedWeight):
        replace_module(graph, weight.target, held.scaled(factor.float()))
    else:
        scaled = view.rows(held.detach().double()) * factor[:, None]
        weight = constant(graph, f"{norm.name}_folded_weight", view.weight(scaled), layer)
    bias_node = constant(graph, f"{norm.name}_folded_bias", shift, layer)
    layer.args = (layer.args[0], weight, bias_node, *layer.args[3:])
    layer.meta = {**norm.meta, STANDS_FOR: norm.name}
    norm.replace_all_uses_with(layer)
    graph.graph.erase_node(norm)
    return True


def constant(graph: fx.GraphModule, name: str, value: Tensor, before: fx.Node) -> fx.Node:
    """A parameter of that name, in fp32."""
    name = unused(graph, name)
    graph.register_parameter(name, nn.Parameter(value.float()))
    with graph.graph.inserting_before(before):
        node = graph.graph.get_attr(name)
    node.meta["val"] = value.float()
    return node
