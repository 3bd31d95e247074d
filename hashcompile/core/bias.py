"""Where what a layer's outputs are off on average can go."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from hashcompile.core.layers import Kind, Layer, arguments, channels_second

aten = torch.ops.aten


def bias_target(node: fx.Node, layer: Layer) -> tuple[str, int] | None:
    """Where a shift of this layer's outputs can go: (path, sign) of a bias, or of the mean of a batch norm."""
    if len(layer.consumers) > 1 or layer.kind not in (Kind.LINEAR, Kind.CONV):
        return None
    bias = arguments(node)["bias"]
    if bias is not None:
        alone = bias.op == "get_attr" and len(bias.users) == 1
        return (str(bias.target), 1) if alone else None
    users = list(node.users)
    if (
        len(users) == 1
        and users[0].target is aten.batch_norm.default
        and channels_second(node, layer.view.shape)
    ):
        mean = arguments(users[0])["running_mean"]
        if mean is not None and mean.op == "get_attr" and len(mean.users) == 1:
            return str(mean.target), -1
    return None


def shared_bias(nodes: Sequence[fx.Node]) -> tuple[str, int] | None:
    """The same for all uses of one weight: their bias, where they share that as well and nothing else reads it."""
    found = {arguments(node)["bias"] for node in nodes}
    paths = {str(bias.target) for bias in found if bias is not None and bias.op == "get_attr"}
    if None in found or len(paths) != 1:
        return None
    (path,) = paths
    held = [node for node in nodes[0].graph.nodes if node.op == "get_attr" and node.target == path]
    return (path, 1) if {user for node in held for user in node.users} == set(nodes) else None
