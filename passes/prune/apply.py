"""Score, select, remove.

Given:  %y = conv2d(%x, %w1: (64, 32, 3, 3)); %z = relu(%y); conv2d(%z, %w2: (16, 64, 3, 3))
Result: %y = conv2d(%x, %w1: (45, 32, 3, 3)); %z = relu(%y); conv2d(%z, %w2: (16, 45, 3, 3))
"""

from __future__ import annotations

from dataclasses import replace

from hashcompile.core.method import Outcome, Scope
from hashcompile.core.reshaping import Finding
from hashcompile.passes.channels import Role, find_groups
from hashcompile.passes.channels.carry_out import carry_out, fixed_in, refused_in
from hashcompile.passes.channels.widths import round_widths
from hashcompile.passes.prune.auto import decide
from hashcompile.passes.prune.config import PruneChannels
from hashcompile.passes.prune.select import overall, per_group
from hashcompile.passes.prune.units import scores_of


def prune(config: PruneChannels, scope: Scope) -> Outcome:
    """Remove what `config` asks for from the layers in scope."""
    channels = find_groups(scope.graph, scope.example, inside_heads=config.attention == "widths")
    fixed = fixed_in(scope)
    inside = [fixed.isdisjoint(group.layers) for group in channels.groups]
    scores = scores_of(scope, channels.groups, inside, config.importance, config.loss)
    findings: list[Finding | None] = [None] * len(scores)
    if config.amount == "auto":
        findings = [
            decide(scope.graph, group, config.rule) if each and group.of_role(Role.PRODUCER) else None
            for group, each in zip(channels.groups, inside, strict=True)
        ]
        keeper = per_group(channels, scores, [each.removed if each else 0 for each in findings])
    elif config.scope == "layer":
        keeper = per_group(
            channels, scores, [int(config.amount * group.count + 0.5) for group in channels.groups]
        )
    else:
        keeper = overall(channels, scores, config.amount)
    refused = refused_in(scope, channels)
    round_widths(channels, keeper, scores, config.round_to)
    went = [int(mask.sum()) for mask in keeper.removed]
    how = "fold" if config.correction is True else config.correction or None
    outcome = carry_out(scope, channels, keeper, how)
    told = tuple(replace(each, removed=count) for each, count in zip(findings, went, strict=True) if each)
    return replace(outcome, refused=tuple(refused), findings=told)
