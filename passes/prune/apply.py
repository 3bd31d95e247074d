"""Score, select, remove.

Given:  %y = conv2d(%x, %w1: (64, 32, 3, 3)); %z = relu(%y); conv2d(%z, %w2: (16, 64, 3, 3))
Result: %y = conv2d(%x, %w1: (45, 32, 3, 3)); %z = relu(%y); conv2d(%z, %w2: (16, 45, 3, 3))
"""

from __future__ import annotations

from hashcompile.core.kept import Refusal
from hashcompile.core.layers import layers
from hashcompile.core.method import Outcome, Scope
from hashcompile.passes.channels import Role, find_groups, remove
from hashcompile.passes.prune.config import PruneChannels
from hashcompile.passes.prune.importance import IMPORTANCES
from hashcompile.passes.prune.select import overall, per_group, round_widths


def prune(config: PruneChannels, scope: Scope) -> Outcome:
    """Remove what `config` asks for from the layers in scope."""
    channels = find_groups(scope.graph, scope.example)
    importance = IMPORTANCES[config.importance]
    fixed = {layer.name for layer in layers(scope.graph)} - scope.layers
    scores = [
        importance(group, scope) if fixed.isdisjoint(group.layers) else None for group in channels.groups
    ]
    select = per_group if config.scope == "layer" else overall
    keeper = select(channels, scores, config.amount)
    round_widths(channels, keeper, scores, config.round_to)
    refused = [refusal for refusal in channels.refused if refusal.layer in scope.layers]
    for group, score in zip(channels.groups, scores, strict=True):
        outside = [layer for layer in group.layers if layer in fixed]
        if score is None and len(outside) < len(group.layers):
            for axis in group.of_role(Role.PRODUCER):
                layer = axis.parameter.removesuffix(".weight")
                if layer in scope.layers:
                    reason = f"it shares them with {outside[0]}, which is to stay as it is"
                    refused.append(Refusal(layer, group.count, len(axis.unit), reason))
    return Outcome(remove(channels, keeper.removed), tuple(refused))
