"""How units come about: the weight, bias and batch norm that make each an affine function of the layer's inputs.

    unit u of a layer = f_u (w_u x + b_u - mean_u) + beta_u,    f = gamma / sqrt(var + eps)

Behind its batch norm, a unit has the weights f_u w_u and the bias f_u (b_u - mean_u) + beta_u; two units whose weights
differ may be the same after all, and averages are of what units are, not of how that is written.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from hashcompile.core.layers import CONSUMERS, Kind, arguments, attribute, channels_second, layers
from hashcompile.passes.channels import Axis, Group, Role

aten = torch.ops.aten


@dataclass(frozen=True)
class Made:
    """A weight that produces units, and what belongs to its outputs; names of parameters and buffers, or None."""

    axis: Axis
    bias: str | None = None
    gamma: str | None = None
    beta: str | None = None
    mean: str | None = None
    variance: str | None = None
    eps: float = 0.0

    def names(self) -> tuple[str, ...]:
        found = (self.axis.parameter, self.bias, self.gamma, self.beta, self.mean, self.variance)
        return tuple(name for name in found if name is not None)

    def gain(self, graph: fx.GraphModule) -> Tensor:
        """f, (N,) float64."""
        ones = torch.ones(len(self.axis.unit), dtype=torch.float64)
        scale = ones if self.gamma is None else attribute(graph, self.gamma).detach().double()
        if self.variance is None:
            return scale
        return scale / (attribute(graph, self.variance).detach().double() + self.eps).sqrt()

    def offset(self, graph: fx.GraphModule) -> Tensor:
        """f (b - mean) + beta, (N,) float64."""
        bias, mean, beta = (
            0.0 if name is None else attribute(graph, name).detach().double()
            for name in (self.bias, self.mean, self.beta)
        )
        return self.gain(graph) * (bias - mean) + beta


def made(graph: fx.GraphModule, group: Group) -> list[Made]:
    """One for each weight that produces the group."""
    known = {
        layer.parameter: layer for layer in layers(graph) if len(layer.consumers) == 1 and not layer.others
    }
    nodes = {node.name: node for node in graph.graph.nodes}
    found = []
    for axis in group.of_role(Role.PRODUCER):
        layer = known.get(axis.parameter)
        each = layer is not None and layer.kind is not Kind.EMBEDDING and layer.view.size[0] == len(axis.unit)
        found.append(of_node(axis, nodes[layer.consumers[0]]) if layer and each else Made(axis))
    return found


def reads(node: fx.Node, parameter: str) -> bool:
    return any(each.op == "get_attr" and each.target == parameter for each in node.all_input_nodes)


def of_node(axis: Axis, node: fx.Node) -> Made:
    """A layer with an output for each index along the axis."""
    bias = alone(arguments(node)["bias"])
    users = list(node.users)
    norm = users[0] if len(users) == 1 and users[0].target is aten.batch_norm.default else None
    weight = node.args[CONSUMERS[node.target][1]]
    if norm is None or not channels_second(node, weight.meta["val"].shape):  # type: ignore[union-attr]
        return Made(axis, bias)
    given = arguments(norm)
    gamma, beta, mean, variance = (
        alone(given[name]) for name in ("weight", "bias", "running_mean", "running_var")
    )
    if mean is None or variance is None or given["training"]:
        return Made(axis, bias)
    return Made(axis, bias, gamma, beta, mean, variance, float(given["eps"]))


def alone(node: fx.Node | None) -> str | None:
    """The name of a parameter that nobody else reads."""
    return str(node.target) if node is not None and node.op == "get_attr" and len(node.users) == 1 else None
