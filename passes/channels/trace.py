"""A graph run on labels: each node's rule (`rules/`) says what becomes of the labels of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from hashcompile.core.errors import GraphError
from hashcompile.core.naming import named
from hashcompile.passes.channels.facts import Facts
from hashcompile.passes.channels.labels import Labels, core, unlabelled
from hashcompile.passes.channels.parameters import Parameters, Role

Rule = Callable[["Trace", fx.Node], Any]

aten = torch.ops.aten
CONSTANTS = (
    *(aten.zeros, aten.ones, aten.full, aten.empty),
    *(aten.new_zeros, aten.new_ones, aten.new_full, aten.new_empty),
)  # one number all over, whatever size they are given


class Trace:
    """`env[node]`: the labels of a value, or a list of them."""

    def __init__(
        self,
        graph: fx.GraphModule,
        example: Sequence[Any],
        rule_of: Callable[[fx.Node], Rule],
        inside_heads: bool = False,
    ) -> None:
        self.graph = graph
        self.inside_heads = inside_heads  # what products of two activations are about: `rules/products.py`
        self.facts = Facts(graph, example)
        self.labels = Labels()
        self.parameters = Parameters(graph, self.labels)
        self.env: dict[fx.Node, Any] = {}
        for node in graph.graph.nodes:
            self.labels.where = named(node)
            self.visit(node, rule_of)
        self.parameters.settle()

    def visit(self, node: fx.Node, rule_of: Callable[[fx.Node], Rule]) -> None:
        shape = self.facts.shapes[node]
        if node.op == "output":
            for leaf in node.all_input_nodes:
                self.pin(leaf, "it leaves the model as an output")
        elif node.op == "call_function":
            found = rule_of(node)(self, node) if self.carries(node) else silence(shape)
            self.env[node] = self.checked(node, found, shape)
        elif node.op != "get_attr":  # an input, or a weight that is encoded already
            self.env[node] = silence(shape)

    def checked(self, node: fx.Node, found: Any, shape: Any) -> Any:
        if isinstance(shape, list):
            return [self.checked(node, one, size) for one, size in zip(found, shape, strict=True)]
        if shape is None:
            return None
        if tuple(found.shape) != shape:
            raise GraphError(f"{node.name}: labels of shape {tuple(found.shape)} for a value of {shape}")
        return core(found).expand(shape)

    def carries(self, node: fx.Node) -> bool:
        """Does it read anything that has channels, or make what takes those that it meets?"""
        return getattr(node.target, "overloadpacket", None) in CONSTANTS or any(
            is_parameter(each) or any(bool((core(labels) >= 0).any()) for labels in self.leaves(each))
            for each in node.all_input_nodes
        )

    def leaves(self, argument: Any) -> list[Tensor]:
        """The labels of every tensor in an argument."""
        return [labels for labels in pytree.tree_leaves(self.of(argument)) if isinstance(labels, Tensor)]

    def of(self, argument: Any) -> Any:
        """The labels of an argument: a tensor or a list of tensors."""
        if isinstance(argument, (tuple, list)):
            return [self.of(each) for each in argument]
        if is_parameter(argument):
            return self.parameters.elements(str(argument.target))
        return self.env.get(argument)

    def shape(self, node: Any) -> tuple[int, ...]:
        shape: tuple[int, ...] = self.facts.shapes[node]
        return shape

    def slices(self, node: fx.Node, dim: int, role: Role) -> Tensor:
        """Labels of the slices of the parameter that `node` reads."""
        return self.parameters.slices(str(node.target), dim, role)

    def pin(self, node: fx.Node, why: str) -> None:
        for labels in self.leaves(node):
            self.labels.pin(labels, why)

    def refuse(self, node: fx.Node, why: str) -> Any:
        """No channel that `node` reads may go; its results have none."""
        for argument in node.all_input_nodes:
            self.pin(argument, why)
        return silence(self.facts.shapes[node])

    def is_tensor(self, argument: Any) -> bool:
        return isinstance(argument, fx.Node) and isinstance(self.facts.shapes[argument], tuple)


def silence(shape: Any) -> Any:
    if isinstance(shape, list):
        return [silence(each) for each in shape]
    return None if shape is None else unlabelled(shape)


def is_parameter(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.op == "get_attr"
