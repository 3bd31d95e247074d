"""`amount="auto"`: how many units of each group go, and what its weights say of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, fx

from hashcompile.core import pq_index
from hashcompile.core.pq_index import Phase
from hashcompile.core.reshaping import RESHAPING, Finding, Reshaping
from hashcompile.passes.channels import Group
from hashcompile.passes.prune import column_norm
from hashcompile.passes.prune.units import produced

PQ_INDEX, COLUMN_NORM = pq_index.Rule(), column_norm.Rule()


def decide(graph: fx.GraphModule, group: Group, rule: str) -> Finding:
    """What `rule` finds in a group, knowing what it found in it before."""
    past: Reshaping | None = graph.meta.get(RESHAPING)
    earlier = [
        each.measure
        for each in (past.findings if past else ())
        if (each.rule, each.layer) == (rule, group.layers[0])
    ]
    weights = produced(graph, group)
    return (by_pq_index if rule == "pq_index" else by_column_norm)(group, weights, earlier)


def by_pq_index(group: Group, weights: Sequence[Tensor], earlier: Sequence[float]) -> Finding:
    """The index is that of the layer's weights, of the densest layer where several make the units; the share of weights
    that it allows to go is taken as that of units. Nothing goes once a layer underfits."""
    index = min(pq_index.pq_index(each[each.isfinite()], PQ_INDEX.p, PQ_INDEX.q) for each in weights)
    found = pq_index.phase([*earlier, index])
    share = PQ_INDEX.removable(index) if found is Phase.COMPRESSIBLE else 0.0
    count = math.floor(share * group.count + 1e-9)
    return Finding("pq_index", group.layers[0], group.count, count, index, found.value)


def by_column_norm(group: Group, weights: Sequence[Tensor], earlier: Sequence[float]) -> Finding:
    """Column norms are over all layers that make the units, as root mean squares: what goes of their inputs from round
    to round is no training, and units of more rows are no longer for that.
    """
    norms = torch.cat([each.double() for each in weights], 1).square().nanmean(1).sqrt().nan_to_num(0)
    mean = float(norms.mean())
    count = COLUMN_NORM.removable(norms, earlier)
    if not COLUMN_NORM.is_settled(mean, earlier):
        verdict = "still training"
    else:
        verdict = Phase.COMPRESSIBLE.value if count else "even"
    stays = float(norms.sort().values[count:].mean())  # what the next round is to be compared with
    return Finding("column_norm", group.layers[0], group.count, count, stays, verdict)
