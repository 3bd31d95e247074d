"""The compressed graph, and the few ways in which passes may change one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, fx, nn
from torch.fx.traceback import NodeSource

from hashcompile.core.encoded import EncodedWeight, encoded_weights
from hashcompile.core.errors import GraphError
from hashcompile.core.layers import arguments, attribute, holder_of

aten = torch.ops.aten

STANDS_FOR = "stands_for"  # note of a node: the name of the one whose value it now gives

TRAINING_FLAG = {  # operators whose behaviour in training is a literal argument of the exported graph
    aten.batch_norm.default: 5,
    aten.instance_norm.default: 5,
    aten.dropout.default: 2,
    aten.dropout_.default: 2,
    aten.feature_dropout.default: 2,
    aten.feature_dropout_.default: 2,
    aten.alpha_dropout.default: 2,
    aten.feature_alpha_dropout.default: 2,
}
SPARSE = 4  # position of the argument of aten.embedding that asks for a sparse gradient


class CompressedGraph(fx.GraphModule):
    """A graph of aten operators that trains like any module: `.train()` and `.eval()` flip the literal flags."""

    def train(self, mode: bool = True) -> Self:
        if set_training(self.graph, mode):
            self.recompile()
        return super().train(mode)


def set_training(graph: fx.Graph, mode: bool) -> bool:
    """Set the literal flags of a graph; True if any changed."""
    changed = False
    for node in graph.nodes:
        position = TRAINING_FLAG.get(node.target) if node.op == "call_function" else None
        if position is not None and node.meta.get("trains", True) and bool(node.args[position]) != mode:
            node.update_arg(position, mode)
            changed = True
    return changed


NORMS = (aten.batch_norm.default, aten.instance_norm.default)
RUNNING = (3, 4)  # positions of the running mean and variance


def by_batch_statistics(graph: CompressedGraph) -> fx.GraphModule:
    """A copy whose norms take mean and variance from the batch, as in training, and neither read nor write the running
    ones. All else is as in `graph`, dropout too; the tensors are the same."""
    nodes = fx.Graph()
    nodes.output(nodes.graph_copy(graph.graph, {}))
    nodes.set_codegen(graph.graph._codegen)  # arguments and outputs as the user knows them
    for node in nodes.nodes:
        if node.op == "call_function" and node.target in NORMS:
            for position in RUNNING:
                node.update_arg(position, None)
            node.update_arg(TRAINING_FLAG[node.target], True)
    return fx.GraphModule(graph, nodes)


def flat_copy(graph: CompressedGraph) -> CompressedGraph:
    """A copy in evaluation mode that takes its placeholders in order and returns a flat tuple; with codes as they are
    stored.

    Nodes and module tree are its own; the tensors are those of `graph`, which it may replace but not write to. What is
    made of its nodes, in passes and by exporting it, is traced back to them, and no further.
    """
    nodes = fx.Graph()
    nodes.output(nodes.graph_copy(graph.graph, {}))
    set_training(nodes, mode=False)
    for node in nodes.nodes:
        node.meta.pop("from_node", None)
        node.meta["from_node"] = [NodeSource(node, "flat_copy")]
    flat = CompressedGraph(graph, nodes)
    for name, code in encoded_weights(flat).items():
        replace_module(flat, name, code.stored())
    return flat


def rename(graph: CompressedGraph, names: Mapping[str, str]) -> None:
    """Give nodes that compute something other names; who has such a name already, and keeps it no longer, gets one that
    nobody has.
    """
    computed = [node for node in graph.graph.nodes if node.op == "call_function"]
    given = {node: names[node.name] for node in computed if node.name in names}
    taken = set(given.values())
    nodes, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in graph.graph.nodes:
        name = given.get(node, node.name)
        while node not in given and name in taken:
            name += "_"
        taken.add(name)
        copies[node] = nodes.create_node(
            node.op,
            node.target,
            fx.map_arg(node.args, copies.__getitem__),
            fx.map_arg(node.kwargs, copies.__getitem__),
            name,
        )
        copies[node].meta = dict(node.meta)
    nodes.set_codegen(graph.graph._codegen)
    graph.graph = nodes


def as_compressed(module: fx.GraphModule) -> CompressedGraph:
    """The captured graph as a CompressedGraph in evaluation mode, parameters shared.

    Gradients of embeddings are dense: what a code computes a weight from takes no sparse ones, nor do importances.
    """
    graph = CompressedGraph(module, module.graph)
    for node in graph.graph.nodes:
        if node.op == "call_function" and (position := TRAINING_FLAG.get(node.target)) is not None:
            # a norm that uses the batch's statistics in evaluation has no others: its flag is no mode
            node.meta["trains"] = not node.args[position]
        if node.target is aten.embedding.default and arguments(node)["sparse"]:
            node.update_arg(SPARSE, False)
    return graph.eval()


def replace_weight(graph: fx.GraphModule, parameter: str, encoded: EncodedWeight) -> None:
    """Put `encoded` in the place of a parameter, for all its readers.

    Given:  %w = get_attr[fc.weight];     %y = aten.linear(%x, %w, %b)
    Result: %w = call_module[fc.weight]();  %y = aten.linear(%x, %w, %b)
    """
    holder, leaf = holder_of(graph, parameter)
    delattr(holder, leaf)
    holder.register_module(leaf, encoded.train(graph.training))
    for node in list(graph.graph.nodes):
        if node.op == "get_attr" and node.target == parameter:
            with graph.graph.inserting_before(node):
                call = graph.graph.call_module(parameter)
            call.meta = dict(node.meta)
            node.replace_all_uses_with(call)
            graph.graph.erase_node(node)


def replace_module(graph: fx.GraphModule, path: str, module: nn.Module) -> None:
    """Put `module` where another one hangs."""
    holder, leaf = holder_of(graph, path)
    holder.register_module(leaf, module)


def replace_tensor(graph: fx.GraphModule, path: str, value: Tensor) -> None:
    """Give a parameter or buffer a new value; the old tensor, which others may share, stays as it is."""
    holder, leaf = holder_of(graph, path)
    if (old := holder._parameters.get(leaf)) is not None:
        holder._parameters[leaf] = nn.Parameter(value, requires_grad=old.requires_grad)
    else:
        holder._buffers[leaf] = value


def tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Every parameter and buffer, under all its names."""
    return [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]


def call(graph: fx.Graph, target: Any, *args: Any) -> fx.Node:
    """A call where nodes are being inserted, with a value of the shape that it will have."""
    node = graph.call_function(target, args)
    node.meta = {"val": target(*fx.node.map_arg(args, lambda each: each.meta["val"]))}
    return node


def remove_dead(graph: fx.GraphModule) -> bool:
    """Remove nodes nobody reads, then the parameters, buffers and modules nobody holds. True if any went."""
    modified = graph.graph.eliminate_dead_code(
        lambda node: node.op in ("placeholder", "output") or impure(node)
    )
    read = {str(node.target) for node in graph.graph.nodes if node.op in ("get_attr", "call_module")}
    for name, _ in tensors(graph):
        if not any(name == target or name.startswith(target + ".") for target in read):
            delattr(*holder_of(graph, name))
            modified = True
    graph.delete_all_unused_submodules()
    graph.recompile()
    return modified


def impure(node: fx.Node) -> bool:
    """Nodes that act without being read: in-place writes, assertions."""
    if node.op != "call_function":
        return False
    schema = getattr(node.target, "_schema", None)
    return node.is_impure() or bool(schema is not None and schema.is_mutable)


def check(graph: fx.GraphModule) -> None:
    """The invariants of a compressed graph; a GraphError here is a pass's defect."""
    graph.graph.lint()
    for node in graph.graph.nodes:
        if node.op == "call_module" and not isinstance(attribute(graph, str(node.target)), EncodedWeight):
            raise GraphError(f"node {node.name} calls {node.target}, which is not an EncodedWeight")
        if node.op == "call_function" and not is_operator(node.target):
            raise GraphError(f"node {node.name} calls {node.target}, which is no operator")
        if node.op == "call_method":
            raise GraphError(f"node {node.name} calls a method; a captured graph holds operators only")


def is_operator(target: Any) -> bool:
    """Is it an operator of torch, or arithmetic on sizes?"""
    if isinstance(target, (torch._ops.OpOverload, torch._ops.HigherOrderOperator)):
        return True
    module, name = getattr(target, "__module__", ""), getattr(target, "__name__", "")
    return module in ("_operator", "math") or (str(module).startswith("torch") and name.startswith("sym_"))
