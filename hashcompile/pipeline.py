"""The ordered passes. What comes before what is decided here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

from hashcompile.core.console import progress
from hashcompile.core.encoded import CODES
from hashcompile.core.graph import CompressedGraph, check
from hashcompile.core.method import Compute
from hashcompile.core.reshaping import RESHAPING, Reshaping
from hashcompile.core.signature import Batch, Signature
from hashcompile.core.sweep import sweep
from hashcompile.encode import encode
from hashcompile.passes.cleanup.expands import drop_expands
from hashcompile.passes.cleanup.unpack import unpack
from hashcompile.plan import Plan, Rules, dense_plan, make_plan, structural
from hashcompile.refit_norms import refit_norms
from hashcompile.reshape import reshape


def run(
    graph: CompressedGraph,
    stages: Sequence[Rules],
    signature: Signature,
    example: Batch,
    batches: Sequence[Batch],
    compute: Compute,
    show: bool,
) -> tuple[Plan, dict[str, float]]:
    """Compress `graph` in place; the plan, and the relative output error of each encoded layer, by parameter."""
    unpack(graph)
    with progress("running the original", None, show):
        original = sweep(graph, batches) if batches else []
    plan: Plan | None = None
    reshaping: Reshaping | None = graph.meta.get(RESHAPING)
    errors: dict[str, float] = {}
    for rules in stages:
        if structural(rules):
            drop_expands(graph)
            with progress("reshaping", None, show):
                few, one = (signature.first(example, count) for count in (2, 1))
                step = reshape(graph, rules, few, one, batches)
            reshaping = graph.meta[RESHAPING] = reshaping.then(step) if reshaping else step
        else:
            stage = make_plan(graph, rules)
            plan = plan.then(stage) if plan else stage
            with progress("encoding", len(stage.encoded), show) as tracker:
                errors |= encode(graph, stage, example, batches, compute, tracker)
            if not stage.encoded:
                continue
        with progress("refitting batch norms", None, show):
            refit_norms(graph, original, batches)
        graph.recompile()
        check(graph)
    graph.meta.pop(CODES, None)
    return (plan or dense_plan(graph, reshaping)).reshaped(graph, reshaping), errors
