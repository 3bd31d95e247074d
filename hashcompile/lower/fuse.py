"""Encoded weights and what reads them -> symbolic operators, on a copy of the compressed graph.

Given:  %w = call_module[fc.weight]();  %y = aten.linear(%x, %w, %b)
Result: %y = call_module[fc_op](%x, %codes, %codebook, %scale, %b)     # com.hashcompile::CodebookLinear

and so does a chain of convolutions with all their constants (`hashcompile.lower.chain_op`), and a pair of layers
(`hashcompile.lower.feed_forward`). The copy takes and returns flat tuples, and is exported again: every size downstream
follows from the symbolic one.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx, nn

from hashcompile.core.graph import remove_dead
from hashcompile.core.layers import CONSUMERS, Kind, attribute, holder_of, unused
from hashcompile.core.onnx_op import OnnxOp
from hashcompile.core.rounding import Range
from hashcompile.core.sweep import activation
from hashcompile.lower.chain_op import ChainOp, called, constants, overload
from hashcompile.lower.channels_last import keep_channels_last
from hashcompile.lower.constants import stored
from hashcompile.lower.dense import dense_layers
from hashcompile.lower.destination import ONNX, Destination
from hashcompile.lower.epilogue import Epilogue, find_epilogue, with_epilogue
from hashcompile.lower.exponentials import fuse_exponentials
from hashcompile.lower.feed_forward import FeedForward
from hashcompile.lower.feed_forward import joined as as_one
from hashcompile.lower.fuse_attention import fuse_attentions
from hashcompile.lower.group_norm import group_norms
from hashcompile.lower.matmul import fuse_products
from hashcompile.lower.norm import fuse_norms
from hashcompile.lower.other_convolutions import plain_convolutions
from hashcompile.lower.projections import join_projections
from hashcompile.lower.select import Selection
from hashcompile.lower.steps import Chain
from hashcompile.lower.symbolic import SymbolicOp, call_op
from hashcompile.passes import method_of_code
from hashcompile.passes.cleanup.fold_batch_norm import fold_batch_norm


def fuse(
    selection: Selection, ranges: Mapping[str, Range], to: Destination = ONNX
) -> tuple[fx.GraphModule, list[OnnxOp]]:
    """The selection's graph with symbolic operators in place of encoded weights, and those operators.

    Where bodies are read, what has no kernel of ours is an operator too, and dense layers stay. Elsewhere it becomes a
    dense weight, images keep their channels last, and dense layers are operators where kernels of ours compute them.
    """
    graph = selection.graph
    ops: list[OnnxOp] = []
    for name in selection.codes:
        holder, leaf = holder_of(graph, name)
        holder.register_module(leaf, nn.Module())  # holds the constants under the weight's own name
    replaced: dict[fx.Node, fx.Node] = {}  # values that later stages know by their first nodes
    joined: dict[fx.Node, OnnxOp] = {}
    if to.regions:  # norms before the layers: a sum is cheapest where its row is at hand
        if not to.bodies:
            ops += group_norms(graph, replaced)
        ops += fuse_norms(graph, selection.steps, replaced)
        joined = join_projections(selection)
        ops += joined.values()
    for name, readers in selection.readers.items():
        for reader in readers:
            if reader not in selection.chained | selection.paired and reader not in joined:
                ops += fuse_reader(selection, name, reader, to)
    for pair in selection.feed_forwards:
        ops += fuse_feed_forward(selection, pair)
    for i, chain in enumerate(selection.chains):
        ops += fuse_chain(selection, chain, ChainOp(chain, ranges, overload(i)), replaced)
    if to.regions:
        ops += fuse_attentions(graph, selection.compute)
    remove_dead(graph)
    if not to.bodies:
        fold_batch_norm(graph, dense=True)
        if to.regions:
            plain_convolutions(graph)
            ops += fuse_dense(selection)
        keep_channels_last(graph, pools=to.regions)
        if to.regions:
            ops += fuse_exponentials(graph)
            ops += fuse_products(graph)
    graph.graph.lint()
    return graph, ops


def fuse_reader(selection: Selection, parameter: str, reader: fx.Node, to: Destination) -> Iterable[OnnxOp]:
    op = selection.ops.get(reader)
    if op is not None and to.computes(op, selection.codes[parameter].view.size[0]):
        epilogue = find_epilogue(reader, op, taken=selection.steps) if to.regions else Epilogue(reader)
        return (fuse_layer(selection, parameter, epilogue, reader, op),)
    return decode_before(selection, parameter, reader, to.bodies)


def decode_before(selection: Selection, parameter: str, reader: fx.Node, bodies: bool) -> Iterable[OnnxOp]:
    """Put the dense weight in front of a reader that wants it: decoded while the model loads, or here and now."""
    graph, code = selection.graph, selection.codes[parameter]
    (weight,) = [
        node for node in reader.all_input_nodes if node.op == "call_module" and node.target == parameter
    ]
    with graph.graph.inserting_before(reader):
        if not bodies:
            (dense,) = stored(graph, parameter, {"dense": code().detach()})
            reader.replace_input_with(weight, dense)
            return ()
        op = method_of_code(code).onnx_decode(code)
        held = stored(graph, parameter, op.constants())
        decode = call_op(graph, f"{reader.name}_op", SymbolicOp(op, torch.float32), held)
        reader.replace_input_with(weight, decode)
    return (op,)


def fuse_dense(selection: Selection) -> Iterable[OnnxOp]:
    """Operators in the place of the layers that are left, whose weights are dense."""
    graph = selection.graph
    holders: dict[
        str, str
    ] = {}  # paths of modules for the constants that are made of a tensor which is still there
    for parameter, layer, op in dense_layers(graph):
        if parameter not in holders:
            holders[parameter] = unused(graph, f"{parameter}_dense")
            graph.add_submodule(holders[parameter], nn.Module())
        epilogue = find_epilogue(layer, op, taken=selection.steps)
        yield fuse_layer(selection, holders[parameter], epilogue, layer, op)
    remove_dead(graph)


def fuse_layer(
    selection: Selection, parameter: str, epilogue: Epilogue, layer: fx.Node, op: OnnxOp
) -> OnnxOp:
    """One operator in the place of a layer, and of what follows it; the module `parameter` holds its constants."""
    graph = selection.graph
    kind, position = CONSUMERS[layer.target]
    bias = layer.args[2] if len(layer.args) > 2 and position == 1 else None
    op = with_epilogue(op, epilogue)
    output = epilogue.output
    with graph.graph.inserting_before(output):
        source: Any = activation(layer)
        if kind is Kind.EMBEDDING:  # the kernel reads int64 ids
            source = graph.graph.call_function(torch.ops.aten.to.dtype, (source, torch.int64))
        held = stored(graph, parameter, op.constants())
        more = [bias, epilogue.residual]
        while more and more[-1] is None:
            more.pop()
        call = call_op(graph, f"{layer.name}_op", SymbolicOp(op, torch.float32), (source, *held, *more))
    call.meta = dict(output.meta)
    output.replace_all_uses_with(call)
    return op


def fuse_feed_forward(selection: Selection, pair: FeedForward) -> Iterable[OnnxOp]:
    """One operator in the place of two layers, and of what follows the second."""
    graph, up, down = selection.graph, pair.up, pair.down
    epilogue = find_epilogue(down, selection.ops[down], taken=selection.steps)
    first = with_epilogue(selection.ops[up], pair.between)
    second = with_epilogue(selection.ops[down], epilogue)
    op = as_one(first, second)
    with graph.graph.inserting_before(epilogue.output):
        inputs: list[Any] = [activation(up)]
        for layer, half in ((up, first), (down, second)):
            weight: Any = layer.args[1]
            inputs += stored(graph, weight.target, half.constants())
            inputs.append(layer.args[2] if len(layer.args) > 2 else None)
        inputs.append(epilogue.residual)
        while inputs[-1] is None:
            inputs.pop()
        call = call_op(graph, f"{up.name}_op", SymbolicOp(op, torch.float32), inputs)
    call.meta = dict(epilogue.output.meta)
    epilogue.output.replace_all_uses_with(call)
    return op, called(first), called(second)


def fuse_chain(
    selection: Selection, chain: Chain, module: ChainOp, replaced: dict[fx.Node, fx.Node]
) -> Iterable[OnnxOp]:
    """Put one call in the place of a chain's nodes; `replaced` tells what earlier chains' outputs are now."""
    graph = selection.graph
    inputs = [replaced.get(node, node) for node in chain.inputs]
    within = {node for step in chain.steps for node in step.nodes}
    place = next(node for node in graph.graph.nodes if node not in within and reads_any(node, chain.outputs))
    move_before(place, inputs)
    with graph.graph.inserting_before(place):
        held: list[fx.Node] = []
        for step in chain.convolutions:
            assert step.op is not None
            parameter = str(step.nodes[0].args[1].target)  # type: ignore[union-attr]
            bias = None if step.bias is None else attribute(graph, step.bias.target).detach()
            held += stored(graph, parameter, constants(step.op, bias))
        call = call_op(graph, module.op.overload, module, (*inputs, *held))
        for i, node in enumerate(chain.outputs):
            output = graph.graph.call_function(operator.getitem, (call, i))
            if node.meta["val"].ndim < inputs[0].meta["val"].ndim:  # an average that drops the pixels' dims
                output = graph.graph.call_function(torch.ops.aten.flatten.using_ints, (output, 1))
            output.meta = dict(node.meta)
            node.replace_all_uses_with(output, delete_user_cb=lambda user: user not in within)
            replaced[node] = output
    return (module.op, *(called(step.op) for step in chain.convolutions if step.op is not None))


def reads_any(node: fx.Node, values: Iterable[fx.Node]) -> bool:
    return any(node in value.users for value in values)


def move_before(place: fx.Node, nodes: Iterable[fx.Node]) -> None:
    """Move `nodes` and all that they need in front of `place`, in their own order."""
    needed: set[fx.Node] = set()
    todo = list(nodes)
    while todo:
        node = todo.pop()
        if node not in needed:
            needed.add(node)
            todo += node.all_input_nodes
    behind = place
    late = []
    while behind.op != "output":
        late.append(behind)
        behind = behind.next
    for node in late:
        if node in needed:
            place.prepend(node)
