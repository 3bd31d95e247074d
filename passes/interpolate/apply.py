"""Pivot, remove, fold.

Given:  %y = conv2d(%x, %w1: (64, 32, 3, 3)); %z = relu(%y); conv2d(%z, %w2: (16, 64, 3, 3))
Result: %y = conv2d(%x, %w1: (45, 32, 3, 3)); %z = relu(%y); conv2d(%z, %w2': (16, 45, 3, 3))

with w2' = w2 T, and z ~ T z[kept] at the input of the second convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hashcompile.core.errors import ConfigError
from hashcompile.core.kept import Refusal
from hashcompile.core.method import Outcome, Scope
from hashcompile.passes.channels import find_groups
from hashcompile.passes.channels.carry_out import carry_out, fixed_in
from hashcompile.passes.channels.readings import Reading, readings
from hashcompile.passes.interpolate.config import Interpolative
from hashcompile.passes.interpolate.pivoted import pivoted


def interpolate(config: Interpolative, scope: Scope) -> Outcome:
    """Narrow the layers in scope. Raises ConfigError without calibration data."""
    if not scope.batches:
        raise ConfigError("Interpolative needs calibration data: give compile(..., calibration=...)")
    channels = find_groups(scope.graph, scope.example)
    keeper = channels.keeper()
    fixed = fixed_in(scope)
    refused = [each for each in channels.refused if each.layer in scope.layers]
    for position, (group, seen) in enumerate(
        zip(channels.groups, readings(scope.graph, channels.groups, scope.batches), strict=True)
    ):
        if not fixed.isdisjoint(group.layers):
            continue
        if not seen:
            why = "no linear layer or convolution reads them, so that nothing could tell them from others"
            refused += [Refusal(layer, group.count, group.count, why) for layer in group.layers]
            continue
        pivots = pivoted(together(seen))
        for unit in reversed(pivots.order[pivots.width(config.tolerance) :].tolist()):
            keeper.take(position, unit)
    how = "fold" if config.correction is True else config.correction or None
    kept, corrected = carry_out(scope, channels, keeper, how)
    return Outcome(kept, tuple(refused), corrected=tuple(corrected))


def together(read: Sequence[Reading]) -> Tensor:
    """(U, U): the gram of a group over all layers that read it, each counting alike; of activations less their means,
    for what is constant the next layer need not be told."""
    total = torch.zeros_like(read[0].gram)
    for each in read:
        energy = each.gram.diagonal().sum()
        if energy > 0:
            total += each.centred / energy
    return total
