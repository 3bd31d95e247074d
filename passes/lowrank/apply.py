"""Fit, compare costs, rewire.

One sweep over the calibration data fits layer after layer, each on the inputs that the layers factored before it really
give; until all are known, the graph computes with the products of their factors. A layer keeps its weight where the
factors would take more parameters, or more multiplications.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from hashcompile.core.errors import ConfigError
from hashcompile.core.graph import remove_dead
from hashcompile.core.kept import Refusal
from hashcompile.core.layers import Kind, Layer, arguments, layers, unfit
from hashcompile.core.method import Outcome, Scope
from hashcompile.core.reshaping import RESHAPING, Factored, Reshaping
from hashcompile.passes.channels.surgery import refresh
from hashcompile.passes.lowrank.config import LowRank
from hashcompile.passes.lowrank.forms import Channel, Form, Matrix, Ranks, Spatial, Split, Table, Task, Tucker
from hashcompile.passes.lowrank.geometry import Geometry, geometries
from hashcompile.passes.lowrank.rewire import rewire
from hashcompile.passes.lowrank.tasks import Turn, turns


def factorise(config: LowRank, scope: Scope) -> Outcome:
    """Factor the layers in scope. Raises ConfigError for a basis that calibration data alone can give."""
    if config.by in ("whitened", "pca") and not scope.batches:
        raise ConfigError(
            f"{config}: by={config.by!r} needs calibration data: give compile(..., calibration=...)"
        )
    graph = scope.graph
    nodes = {node.name: node for node in graph.graph.nodes}
    refused: list[Refusal] = []
    fit: list[Layer] = []
    past: Reshaping | None = graph.meta.get(RESHAPING)
    factors = {name for each in (past.factored if past else ()) for name in each.factors}
    for layer in layers(graph):
        if layer.name in scope.layers:
            reason = "it is a factor already" if layer.parameter in factors else unfit(layer)
            reason = reason or stays(layer, nodes[layer.consumers[0]], config)
            if reason:
                refused.append(refusal(layer, reason))
            else:
                fit.append(layer)
    places = geometries(graph, scope.sample, fit)
    found: list[tuple[Layer, Split, Form, Ranks, float]] = []
    for turn in turns(scope, fit):
        form, ranks = chosen(config, turn, places[turn.layer.parameter])
        if reason := too_dear(form, ranks):
            refused.append(refusal(turn.layer, reason))
            continue
        split = form.split(ranks)
        found.append((turn.layer, split, form, ranks, turn.take(graph, split.rows)))
    done = [
        Factored(
            layer.name,
            layer.parameter,
            rewire(graph, layer, split.factors),
            form.says(ranks),
            ranks,
            form.geometry.dense,
            form.size(ranks),
            error,
        )
        for layer, split, form, ranks, error in found
    ]
    remove_dead(graph)
    refresh(graph)
    return Outcome({}, tuple(refused), factored=tuple(done))


def refusal(layer: Layer, reason: str) -> Refusal:
    rows = layer.view.size[0]
    return Refusal(layer.name, rows, rows, reason)


def stays(layer: Layer, node: fx.Node, config: LowRank) -> str | None:
    """Why a layer has no factors of this kind."""
    if layer.kind is Kind.CONV_TRANSPOSE:
        return "a transposed convolution has no factored form here"
    if layer.kind is not Kind.CONV:
        return None
    groups = int(arguments(node)["groups"])
    if groups > 1:
        return f"a convolution of {groups} groups is thin already: an output reads few inputs"
    if config.conv == "spatial" and not plane(layer):
        size = " x ".join(map(str, layer.view.shape[2:]))
        return f"a kernel of {size} has no column and row to split"
    return None


def plane(layer: Layer) -> bool:
    kernel = layer.view.shape[2:]
    return len(kernel) == 2 and min(kernel) > 1


def chosen(config: LowRank, turn: Turn, geometry: Geometry) -> tuple[Form, Ranks]:
    """The form asked for; of several, the one with the fewest multiplications, then parameters."""
    trusted, rows = turn.task.trusted, turn.layer.view.rows(turn.task.weight)
    gram = trusted.gram[0] if trusted.gram is not None else None
    often = (
        trusted.row_counts + 1 if trusted.row_counts is not None else None
    )  # a row never read may be read yet
    by = config.by
    if by == "auto":
        by = "svd" if gram is None else "whitened"
    task = Task(rows, None if by == "svd" else gram, often, by)
    ways = [(form, form.ranks(config)) for form in forms(config, turn.layer, task, geometry)]
    return min(ways, key=lambda way: (way[0].size(way[1]).macs, way[0].size(way[1]).parameters))


def forms(config: LowRank, layer: Layer, task: Task, geometry: Geometry) -> Iterator[Form]:
    if Kind.EMBEDDING in layer.kinds:
        yield Table(task, geometry)
    elif layer.kind is Kind.LINEAR:
        yield Matrix(task, geometry)
    else:
        pointwise = geometry.taps == 1
        if pointwise or config.conv in ("channel", "auto"):
            yield Channel(task, geometry)
        if not pointwise and config.conv in ("tucker", "auto"):
            yield Tucker(task, geometry)
        if config.conv == "spatial" or (config.conv == "auto" and plane(layer)):
            yield Spatial(task, geometry)


def too_dear(form: Form, ranks: Ranks) -> str | None:
    """Why factors of these ranks would not pay; a table alone multiplies nothing, and is judged by its size."""
    before, after = form.geometry.dense, form.size(ranks)
    if after.parameters < before.parameters and (after.macs < before.macs or not before.macs):
        return None
    needed = " and ".join(map(str, ranks))
    return (
        f"factors of rank {needed} would cost more than they save: {before.parameters} -> {after.parameters} "
        f"parameters, {before.macs} -> {after.macs} multiply-accumulates"
    )
