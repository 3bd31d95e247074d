"""Run a graph node by node over many batches at once, stopping in front of some of them.

So a pass can replace a weight between two nodes, and every later layer sees the inputs that the already compressed
prefix really gives it. Each operator runs single-threaded and batches run in parallel: the values are the same
whatever the thread count.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Sequence
from functools import partial
from typing import Any

import torch
from torch import fx

from hashcompile.core.errors import CalibrationError
from hashcompile.core.graph import impure
from hashcompile.core.layers import CONSUMERS, attribute
from hashcompile.core.naming import source_line
from hashcompile.core.parallel import deterministic_map
from hashcompile.core.signature import Batch

Stop = tuple[fx.Node, list[Any]]  # a node, and its activations, one a batch


def sweep(graph: fx.GraphModule, batches: Sequence[Batch]) -> list[Any]:
    """The outputs of `graph`, one a batch."""
    walker = walk(graph, batches)
    while True:
        try:
            next(walker)
        except StopIteration as end:
            return list(end.value)


def walk(
    graph: fx.GraphModule, batches: Sequence[Batch], stops: Container[Any] = CONSUMERS
) -> Generator[Stop, None, list[Any]]:
    """Yield in front of every node whose operator is in `stops` (by default, those that consume a weight); what it
    reads of the graph may then be replaced. Return the outputs.
    """
    nodes = list(graph.graph.nodes)
    last_use = {argument: node for node in nodes for argument in node.all_input_nodes}
    placeholders = [node for node in nodes if node.op == "placeholder"]
    if any(impure(node) for node in nodes):  # an in-place operator must not write to the caller's tensors
        batches = [tuple(value.clone() for value in batch) for batch in batches]
    values: list[dict[fx.Node, Any]] = [dict(zip(placeholders, batch, strict=True)) for batch in batches]
    constants: dict[
        fx.Node, Any
    ] = {}  # what the next node reads of the graph itself, the same for every batch

    def load_from(env: dict[fx.Node, Any]) -> Callable[[fx.Node], Any]:
        return lambda argument: env[argument] if argument in env else constants[argument]

    def execute(node: fx.Node, env: dict[fx.Node, Any]) -> Any:
        args, kwargs = fx.map_arg((node.args, node.kwargs), load_from(env))
        assert callable(node.target)
        try:
            with torch.no_grad():
                return node.target(*args, **kwargs)
        except Exception as error:
            line = source_line(node)
            raise CalibrationError(
                f"the inputs cannot be run: {node.name} ({node.target})"
                f"{f', at {line},' if line else ''} says: {error}"
            ) from error

    for node in nodes:
        if node.op not in ("call_function", "output"):
            continue
        if node.target in stops:
            source = activation(node)
            if source in placeholders or source.op == "call_function":
                yield node, [env[source] for env in values]
            else:  # a layer that reads a buffer, such as the numbers of the positions
                yield node, [constant(graph, source)] * len(values)
        # read after the stop: a weight may be another one now, and a decoded weight is kept for no second reader
        constants = {
            argument: constant(graph, argument)
            for argument in node.all_input_nodes
            if argument.op in ("get_attr", "call_module")
        }
        if node.op == "output":
            return [fx.map_arg(node.args[0], load_from(env)) for env in values]
        for env, value in zip(values, deterministic_map(partial(execute, node), values), strict=True):
            env[node] = value
        for argument in node.all_input_nodes:
            if last_use.get(argument) is node and argument not in constants:
                for env in values:
                    del env[argument]
    raise AssertionError("a graph ends with its output node")


def constant(graph: fx.GraphModule, node: fx.Node) -> Any:
    found = attribute(graph, str(node.target))
    with torch.no_grad():
        return found() if node.op == "call_module" else found


def activation(node: fx.Node) -> fx.Node:
    """The node whose value a layer works on."""
    source = node.args[1 - CONSUMERS[node.target][1] if node.target in CONSUMERS else 0]
    assert isinstance(source, fx.Node)
    return source
