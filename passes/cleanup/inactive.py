"""Operators that do nothing outside of training: dropout(x) -> x, and assertions about types that capture has proven.

Given:  %y = aten.dropout(%x, p, False);  aten._assert_tensor_metadata(%y, ...);  %z = aten.add(%y, %r)
Result: %z = aten.add(%x, %r)

Nothing then stands between a layer and what follows it, and values have the readers that they seem to have.
"""

from __future__ import annotations

import torch
from torch import fx

aten = torch.ops.aten

DROPOUTS = tuple(
    getattr(aten, name).default
    for name in (
        "dropout",
        "dropout_",
        "feature_dropout",
        "feature_dropout_",
        "alpha_dropout",
        "alpha_dropout_",
    )
)


def drop_inactive(graph: fx.GraphModule) -> bool:
    """Remove every node that does nothing. True if there was one."""
    modified = False
    for node in list(graph.graph.nodes):
        if node.target in DROPOUTS and node.args[2] is False:
            node.replace_all_uses_with(node.args[0])
        elif node.target is not aten._assert_tensor_metadata.default:
            continue
        graph.graph.erase_node(node)
        modified = True
    if modified:
        graph.recompile()
    return modified
