"""Where what a layer's outputs are off on average can go."""

from __future__ import annotations

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
