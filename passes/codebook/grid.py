"""Tables of whole numbers, for kernels that multiply in int8.

Rounding each entry by itself shifts all its weights the same way, which inputs of a common sign add up. So a table is
rounded as a row of weights is: by error feedback, under the gram of the entries, M = 1/2 d2E / dtable2.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from .alternate import Alternation
from .chunk import Chunk
from .feedback import sweep

GRID = 127  # largest magnitude of an entry
GRAM = 16  # entries up to which M is worth its L products with H; its diagonal serves beyond
STEPS = 33  # grid steps that are tried: all of them round the largest magnitude to 127
DESCENTS = 4  # sweeps of coordinate descent after the error feedback


def snap_tables(fit: Alternation) -> None:
    """Entries to whole numbers in [-127, 127], the largest magnitude 127; scales take up the step."""
    gram, best = _gram(fit), fit.tables.clone()
    slope = fit.total(lambda chunk: chunk.slope(len(best)))
    steps = torch.ones(len(best), dtype=best.dtype)
    for g, form in enumerate(gram):
        best[g], steps[g] = _snap(fit.tables[g] + torch.linalg.solve(form, slope[g]), form)
    fit.tables = best
    for chunk in fit.chunks:
        chunk.scale = chunk.scale * steps[chunk.group]
    fit.sort_tables()


def _gram(fit: Alternation) -> Tensor:
    """M of each table: (G, L, L), positive definite also where entries are unused."""
    groups, entries = fit.tables.shape
    gram = torch.diag_embed(fit.total(lambda chunk: chunk.steepness(groups)))
    if entries <= GRAM:
        for entry in range(entries):
            unit = torch.zeros_like(fit.tables)
            unit[:, entry] = 1
            gram[:, entry] = fit.total(partial(Chunk.bend, direction=unit))
    gram = (gram + gram.mT) / 2
    mean = gram.diagonal(dim1=1, dim2=2).mean(1)
    ridge = torch.where(mean > 0, 1e-6 * mean, 1.0)
    return gram + ridge[:, None, None] * torch.eye(entries, dtype=gram.dtype)


def _snap(table: Tensor, form: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers t: (L,) and a step: (), with t * step close to `table: (L,)` under `form: (L, L)`."""
    peak = table.abs().max()
    peak = torch.where(peak > 0, peak, 1.0)
    steps = peak / torch.linspace(GRID - 0.49, GRID + 0.49, STEPS, dtype=table.dtype)
    targets = table[:, None] / steps  # (L, STEPS)
    levels = torch.arange(-GRID, GRID + 1, dtype=table.dtype).expand(STEPS, -1)
    chosen = (
        sweep(targets, torch.zeros_like(targets), torch.linalg.cholesky(form)[None], levels).double() - GRID
    )
    for _ in range(DESCENTS):
        chosen = sweep(chosen, form @ (targets - chosen), form[None], levels).double() - GRID
    plain = (table / peak * GRID).round()  # has its largest magnitude at 127, whatever feedback did
    candidates = torch.cat([chosen, plain[:, None]], 1)
    steps = torch.cat([steps, peak[None] / GRID])
    gap = table[:, None] - candidates * steps
    cost = (gap * (form @ gap)).sum(0)
    cost[candidates.abs().amax(0) < candidates[:, -1].abs().max()] = torch.inf
    return candidates[:, cost.argmin()], steps[cost.argmin()]
