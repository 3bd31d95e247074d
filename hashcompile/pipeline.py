"""The ordered passes. What comes before what is decided here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

from hashcompile.core.console import progress
from hashcompile.core.graph import CompressedGraph, check
from hashcompile.core.method import Compute
from hashcompile.core.signature import Batch
from hashcompile.core.sweep import sweep
from hashcompile.encode import encode
from hashcompile.plan import Plan, Rules, make_plan
from hashcompile.refit_norms import refit_norms


def run(
    graph: CompressedGraph, stages: Sequence[Rules], batches: Sequence[Batch], compute: Compute, show: bool
) -> tuple[Plan, dict[str, float]]:
    """Compress `graph` in place; the plan, and the relative output error of each encoded layer, by parameter."""
    with progress("running the original", None, show):
        original = sweep(graph, batches) if batches else []
    plan: Plan | None = None
    errors: dict[str, float] = {}
    for rules in stages:
        stage = make_plan(graph, rules)
        plan = plan.then(stage) if plan else stage
        with progress("encoding", len(stage.encoded), show) as tracker:
            errors |= encode(graph, stage, batches, compute, tracker)
        if stage.encoded:
            with progress("refitting batch norms", None, show):
                refit_norms(graph, original, batches)
        graph.recompile()
        check(graph)
    assert plan is not None
    return plan, errors
