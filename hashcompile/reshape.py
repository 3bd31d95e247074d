"""Run a structural stage: every config on the layers that the user's globs give it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hashcompile.core.graph import CompressedGraph, check, flat_copy, tensors
from hashcompile.core.kept import Kept, Refusal, compose
from hashcompile.core.layers import layers
from hashcompile.core.macs import macs
from hashcompile.core.method import Scope
from hashcompile.core.reshaping import PARTS, Corrected, Factored, Finding, Reshaping, Size, Uncorrected
from hashcompile.core.signature import Batch
from hashcompile.passes import rewrite_of
from hashcompile.plan import Rules, check_globs, choose


def reshape(
    graph: CompressedGraph, rules: Rules, example: Batch, sample: Batch, batches: Sequence[Batch]
) -> Reshaping:
    """Rewrite `graph` in place.

    example: inputs of which every symbolic size is at least 2; `sample`: one sample of them, whose cost is reported.
    """
    check_globs(graph, rules)
    scopes: dict[Any, set[str]] = {}
    for layer in layers(graph):
        if (config := choose(layer, rules)[0]) is not None:
            scopes.setdefault(config, set()).add(layer.name)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors(graph)}
    before = size_of(graph, sample)
    kept: Kept = {name: {} for name in shapes}
    refused: list[Refusal] = []
    findings: list[Finding] = []
    corrected: list[Corrected] = []
    uncorrected: list[Uncorrected] = []
    factored: list[Factored] = []
    for config, names in scopes.items():
        rewrite = rewrite_of(config)
        assert rewrite is not None
        outcome = rewrite.apply(config, Scope(graph, frozenset(names), example, sample, batches))
        kept = compose(kept, outcome.kept)
        refused += outcome.refused
        findings += outcome.findings
        corrected += outcome.corrected
        uncorrected += outcome.uncorrected
        factored += outcome.factored
        check(graph)
    # one tensor of the graph, several paths in the user's model
    for name, others in graph.meta["tied"].items():
        for other in others if name in kept else ():
            kept[other], shapes[other] = kept[name], shapes[name]
    for name, shape in graph.meta["unread"].items():
        kept[name], shapes[name] = {}, shape
    after = size_of(graph, sample)
    methods = tuple(map(str, scopes))
    return Reshaping(
        kept,
        shapes,
        before,
        after,
        methods,
        tuple(refused),
        tuple(findings),
        tuple(corrected),
        tuple(uncorrected),
        tuple(factored),
        graph.meta["tied"],
        graph.meta[PARTS],
    )


def size_of(graph: CompressedGraph, sample: Batch) -> Size:
    parameters = sum(parameter.numel() for parameter in graph.parameters())
    return Size(parameters, macs(flat_copy(graph), sample))
