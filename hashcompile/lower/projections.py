"""The projections that one attention reads -> one layer.

Given:  %q = linear(%x, %wq, %bq); %k = linear(%x, %wk, %bk); %v = linear(%x, %wv, %bv), read by one attention alone
Result: %y = call_module[qkv](%x, %codes, %codebook, %scale, %bias)     # com.hashcompile::CodebookLinear
        %q, %k, %v = slices of %y

Their input is read, and rounded, once instead of three times; the attention reads the slices where they lie.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx, nn

from hashcompile.core.layers import Kind, attribute, unused
from hashcompile.core.onnx_op import OnnxOp
from hashcompile.core.sweep import activation
from hashcompile.lower.attention import Found, find_attentions
from hashcompile.lower.constants import stored
from hashcompile.lower.match import token_major
from hashcompile.lower.select import Selection
from hashcompile.lower.symbolic import SymbolicOp, call_op
from hashcompile.passes import method_of_code

aten = torch.ops.aten


def join_projections(selection: Selection) -> dict[fx.Node, OnnxOp]:
    """Rewrite the graph wherever it can be done. The layers that are gone, and the operators that do their work."""
    joined: dict[fx.Node, OnnxOp] = {}
    for found in find_attentions(selection.graph.graph):
        layers = projections(selection, found)
        if layers and (op := join(selection, layers)) is not None:
            joined |= dict.fromkeys(layers, op)
    return joined


def projections(selection: Selection, found: Found) -> tuple[fx.Node, ...]:
    """The linear layers whose outputs an attention reads, and nobody else; none if they are not all alike."""
    layers = []
    for node in (found.q, found.k, found.v):
        layer, path = token_major(node)
        if layer is node or not all(len(step.users) == 1 for step in (layer, *path)):
            return ()
        layers.append(layer)
    ops = [selection.ops.get(layer) for layer in layers]
    if len({*layers}) < 3 or any(op is None or op.operator != "CodebookLinear" for op in ops):
        return ()
    same_input = len({activation(layer) for layer in layers}) == 1
    alone = all(len(selection.readers[parameter_of(layer)]) == 1 for layer in layers)
    return tuple(layers) if same_input and alone else ()


def parameter_of(layer: fx.Node) -> str:
    weight = layer.args[1]
    assert isinstance(weight, fx.Node)
    return str(weight.target)


def join(selection: Selection, layers: Sequence[fx.Node]) -> OnnxOp | None:
    """One layer in the place of `layers`; None where no single code holds their weights."""
    graph, first = selection.graph, min(layers)
    codes = [selection.codes[parameter_of(layer)] for layer in layers]
    if (code := codes[0].joined(codes[1:])) is None:
        return None
    biased = [layer for layer in layers if has_bias(layer)]
    op = method_of_code(code).onnx_fused(code, (biased or layers)[0], Kind.LINEAR, selection.compute)
    assert op is not None
    constants = dict(op.constants())
    if biased:
        constants["bias"] = torch.cat([bias_of(graph, layer) for layer in layers])
    parameter = f"{joint_name(graph, [parameter_of(layer) for layer in layers])}.weight"
    graph.add_submodule(parameter, nn.Module())
    with graph.graph.inserting_before(first):
        held = stored(graph, parameter, constants)
        inputs = (activation(first), *held)
        call = call_op(graph, f"{first.name}_joint_op", SymbolicOp(op, torch.float32), inputs)
        value = first.meta["val"]
        call.meta = {"val": value.new_empty((*value.shape[:-1], code.view.size[0]))}
        start = 0
        for layer, part in zip(layers, codes, strict=True):
            end = start + part.view.size[0]
            piece = graph.graph.call_function(aten.slice.Tensor, (call, len(value.shape) - 1, start, end))
            piece.meta = dict(layer.meta)
            layer.replace_all_uses_with(piece)
            start = end
    return op


def has_bias(layer: fx.Node) -> bool:
    return len(layer.args) > 2 and layer.args[2] is not None


def bias_of(graph: fx.GraphModule, layer: fx.Node) -> torch.Tensor:
    """(N,); zeros for a layer without one, whose neighbours may have one."""
    if not has_bias(layer):
        return torch.zeros(int(layer.meta["val"].shape[-1]))
    value: torch.Tensor = attribute(graph, str(layer.args[2].target)).detach()  # type: ignore[union-attr]
    return value


def joint_name(graph: fx.GraphModule, parameters: Sequence[str]) -> str:
    """a.query.weight, a.key.weight, a.value.weight -> a.query_key_value, a name that is free."""
    layers = [parameter.removesuffix(".weight").split(".") for parameter in parameters]
    shared = 0
    while len({".".join(layer[: shared + 1]) for layer in layers}) == 1:
        shared += 1
    own = "_".join("_".join(layer[shared:]) for layer in layers)
    return unused(graph, ".".join([*layers[0][:shared], own]))
