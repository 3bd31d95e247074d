"""Pivot, try, remove, fold.

Given:  %y = conv2d(%x, %w1: (64, 32, 3, 3)); %z = relu(%y); conv2d(%z, %w2: (16, 64, 3, 3))
Result: %y = conv2d(%x, %w1: (45, 32, 3, 3)); %z = relu(%y); conv2d(%z, %w2': (16, 45, 3, 3))

with w2' = w2 T, and z ~ T z[kept] at the input of the second convolution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, fx

from hashcompile.core.errors import ConfigError
from hashcompile.core.kept import Refusal
from hashcompile.core.layers import attribute
from hashcompile.core.method import Outcome, Scope
from hashcompile.passes.channels import Group, Role, find_groups
from hashcompile.passes.channels.carry_out import carry_out, fixed_in, refused_in, untold
from hashcompile.passes.channels.costs import unit_costs
from hashcompile.passes.channels.readings import Reading, readings
from hashcompile.passes.channels.slices import slices
from hashcompile.passes.channels.widths import round_widths
from hashcompile.passes.interpolate.config import Interpolative
from hashcompile.passes.interpolate.pivoted import Pivots, View, pivoted
from hashcompile.passes.interpolate.trial import Trial
from hashcompile.passes.interpolate.widths import Curve, widths

TRIED = (
    0.3  # relative error of what reads a group, at the width that is tried: well above noise, far from ruin
)
TRIAL_BATCHES = 2  # of the calibration data


def interpolate(config: Interpolative, scope: Scope) -> Outcome:
    """Narrow the layers in scope. Raises ConfigError without calibration data."""
    if not scope.batches:
        raise ConfigError("Interpolative needs calibration data: give compile(..., calibration=...)")
    channels = find_groups(scope.graph, scope.example)
    fixed = fixed_in(scope)
    refused = refused_in(scope, channels)
    costs = unit_costs(scope.graph, channels.groups, scope.example)
    trial = Trial(scope.graph, scope.batches[:TRIAL_BATCHES])
    found: dict[int, tuple[Pivots, Curve]] = {}
    read = readings(scope.graph, channels.groups, scope.batches)
    stay = untold(scope.graph, channels)
    for position, (group, seen) in enumerate(zip(channels.groups, read, strict=True)):
        if not fixed.isdisjoint(group.layers):
            continue
        if position in stay:
            refused += stay[position]
            continue
        if not seen:
            why = "no linear layer or convolution reads them, so that nothing could tell them from others"
            refused += [Refusal(layer, group.count, group.count, why) for layer in group.layers]
            continue
        pivots = pivoted([view(scope.graph, group, each) for each in seen], group.count)
        lost = pivots.residual * severity(trial, group, seen, pivots)
        found[position] = pivots, Curve(lost, costs[position][pivots.order])
    keeper = channels.keeper()
    scores: list[Tensor | None] = [None] * len(channels.groups)
    kept_units = widths([curve for _, curve in found.values()], config.tolerance)
    for (position, (pivots, _)), width in zip(found.items(), kept_units, strict=True):
        for unit in reversed(pivots.order[width:].tolist()):
            keeper.take(position, unit)
        scores[position] = -pivots.order.argsort().double()
    round_widths(channels, keeper, scores, config.round_to)
    how = "fold" if config.correction is True else config.correction or None
    outcome = carry_out(scope, channels, keeper, how)
    left = {at: pivots.residual[int((~keeper.removed[at]).sum())] for at, (pivots, _) in found.items()}
    expected = predicted(channels.groups, left)
    told = tuple(replace(each, predicted=expected.get(each.layer)) for each in outcome.corrected)
    return replace(outcome, refused=tuple(refused), corrected=told)


def predicted(groups: Sequence[Group], left: Mapping[int, Tensor]) -> dict[str, float]:
    """The relative error of every layer that reads groups of which `left`, by position, is the residual."""
    squares: dict[str, float] = {}
    for position, residual in left.items():
        for axis in groups[position].of_role(Role.CONSUMER):
            layer = axis.parameter.removesuffix(".weight")
            squares[layer] = squares.get(layer, 0.0) + float(residual)
    return {layer: math.sqrt(square) for layer, square in squares.items()}


def view(graph: fx.GraphModule, group: Group, seen: Reading) -> View:
    """Activations less their means, for what is constant the next layer need not be told; and the layer's weights."""
    axis = next(axis for axis in group.of_role(Role.CONSUMER) if axis.parameter == seen.parameter)
    rows = slices(attribute(graph, seen.parameter), axis, group.count).double()
    return View(seen.centred, rows @ rows.T)


def severity(trial: Trial, group: Group, seen: Sequence[Reading], pivots: Pivots) -> float:
    """What the outputs lose for what the residual says, at one width."""
    width = max(1, pivots.width(TRIED) - 1)
    predicted = float(pivots.residual[width])
    return trial.error(group, seen, pivots.order[:width]) / predicted if predicted > 0 else 1.0
