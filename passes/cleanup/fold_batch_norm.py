"""Conv . BatchNorm -> Conv, for encoded weights: the row scale takes the factor, the bias takes the rest.

Given:  %w = call_module[conv.weight]()
        %y = aten.conv2d(%x, %w, %b)
        %z = aten.batch_norm(%y, gamma, beta, mean, var)
Result: %w = call_module[conv.weight]()
        %z = aten.conv2d(%x, %w, %b')

with f = gamma / sqrt(var + eps), the code's row n scaled by f[n], and b' = (b - mean) * f + beta.
Codes and tables stay as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from hashcompile.core.encoded import EncodedWeight
from hashcompile.core.graph import STANDS_FOR, replace_module
from hashcompile.core.layers import CONSUMERS, Kind, arguments, attribute, channels_second

aten = torch.ops.aten


def fold_batch_norm(graph: fx.GraphModule) -> bool:
    """Fold every batch norm that is in evaluation mode and alone behind an encoded layer. True if any was."""
    modified = False
    for norm in list(graph.graph.nodes):
        if norm.op == "call_function" and norm.target is aten.batch_norm.default:
            modified |= fold(graph, norm)
    if modified:
        graph.recompile()
    return modified


def fold(graph: fx.GraphModule, norm: fx.Node) -> bool:
    given = arguments(norm)
    layer = given["input"]
    if given["training"] or given["running_mean"] is None or len(layer.users) > 1:
        return False
    if layer.target not in CONSUMERS or CONSUMERS[layer.target][0] not in (Kind.CONV, Kind.CONV_TRANSPOSE):
        return False
    weight = layer.args[1]
    if weight.op != "call_module" or len(weight.users) > 1:
        return False
    code = attribute(graph, weight.target)
    assert isinstance(code, EncodedWeight)
    if not channels_second(layer, code.view.shape):
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

    replace_module(graph, weight.target, code.scaled(factor.float()))
    name = f"{norm.name}_folded_bias"
    graph.register_parameter(name, nn.Parameter(shift.float()))
    with graph.graph.inserting_before(layer):
        folded: Any = graph.graph.get_attr(name)
    folded.meta["val"] = shift.float()
    layer.args = (*layer.args[:2], folded, *layer.args[3:])
    layer.meta = {**norm.meta, STANDS_FOR: norm.name}
    norm.replace_all_uses_with(layer)
    graph.graph.erase_node(norm)
    return True
