"""Weight -> SparseWeight: which weights stay, what they become, and the reason why a layer is better left alone."""

from __future__ import annotations

import torch
from torch import Tensor

from hashcompile.core import pq_index
from hashcompile.core.encoded import EncodedWeight
from hashcompile.core.layers import Kind, Layer
from hashcompile.core.method import Compute, Statistics
from hashcompile.passes.sparse.coded import Code, fit_code
from hashcompile.passes.sparse.config import Sparse
from hashcompile.passes.sparse.learning import LearningSparse
from hashcompile.passes.sparse.masks import of_pattern, of_rows, of_share
from hashcompile.passes.sparse.surgeon import Choose, Round, operate, pattern, share
from hashcompile.passes.sparse.weight import SparseCodes, SparseValues, SparseWeight

RULE = pq_index.Rule()


def refuse(layer: Layer, config: Sparse) -> str | None:
    """A layer without what a method looks at, or one that would take as many bytes as it does."""
    rows, columns = layer.view.size
    if (
        config.importance in ("wanda", "sparsegpt")
        and Kind.LINEAR not in layer.kinds
        and Kind.EMBEDDING in layer.kinds
    ):
        return (
            f"the inputs of an embedding are numbers of its rows: {config.importance} finds no norms in them"
        )
    if config.pattern and columns < config.kept_of[1]:
        return f"its {columns} inputs hold no run of {config.kept_of[1]}"
    if config.amount in (0, "auto") or config.scope == "global":
        return None  # what stays is known later
    stay = config.kept_of[0] / config.kept_of[1] if config.pattern else 1 - float(config.amount or 0)
    value = (config.bits or 32) / 8
    encoded = layer.view.numel * (stay * value + 1 / 8) + (4 * (2**config.bits + rows) if config.bits else 0)
    dense = 4 * layer.view.numel
    if encoded >= dense and stay * layer.view.numel * (value + 1 / 4) >= dense:
        return f"too dense to gain: {encoded:.0f} bytes encoded, {dense} bytes dense"
    return None


def encode(
    weight: Tensor, layer: Layer, config: Sparse, statistics: Statistics, compute: Compute
) -> SparseWeight | LearningSparse:
    """Prune, then correct or quantise what stays, under the statistics of its inputs; begin there if it learns."""
    rows = layer.view.rows(weight.detach()).double()
    grams = statistics.gram
    mask = statistics.kept if statistics.kept is not None else chosen(rows, config, grams)
    moves = grams is not None and (
        config.correction or config.importance == "sparsegpt" or config.bits is not None
    )
    if mask is not None:
        mask = mask & (rows != 0)
    if (
        moves
        and grams is not None
        and (mask is None or config.correction or config.importance == "sparsegpt")
    ):
        rows, mask = by_set(rows, grams, mask, config, None)
    if mask is None:  # nothing is known of the inputs
        mask = by_scores(rows.abs(), config, amount_of(rows, config))
    rows = torch.where(mask, rows, 0.0)
    if config.bits is None:
        return SparseValues(layer.view, mask, rows[mask].float())
    often = statistics.row_counts + 1 if statistics.row_counts is not None else None
    code, kept = fit_code(rows, mask, config.bits, grams, often), rows[mask]
    if grams is not None:
        rows, _ = by_set(rows, grams, mask, config, code)
        code = code.refitted(layer.view.rows(weight.detach()).double(), rows, mask, grams)
    found = SparseCodes(layer.view, mask, code.indices(rows, mask), code.table.float(), code.scale.float())
    return LearningSparse(found, kept) if config.learn else found


def recall(code: EncodedWeight, config: Sparse) -> EncodedWeight | None:
    """The learnt code of a weight, where nothing more is to go; as it will be stored, or to be learnt on as it is."""
    if not isinstance(code, (SparseCodes, LearningSparse)) or config.amount != 0 or config.bits != code.bits:
        return None
    return code if config.learn else code.stored()


def chosen(rows: Tensor, config: Sparse, grams: Tensor | None) -> Tensor | None:
    """The mask, where scores alone give it; None where surgery chooses as it goes."""
    amount = amount_of(rows, config)
    if config.importance == "sparsegpt":
        return None
    if config.importance == "wanda" and grams is not None:
        norms = (
            grams.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt().repeat_interleave(len(rows) // len(grams), 0)
        )
        return (
            of_pattern(rows.abs() * norms, *config.kept_of)
            if config.pattern
            else of_rows(rows.abs() * norms, amount)
        )
    return by_scores(rows.abs(), config, amount)


def by_scores(scores: Tensor, config: Sparse, amount: float) -> Tensor:
    return of_pattern(scores, *config.kept_of) if config.pattern else of_share(scores, amount)


def amount_of(rows: Tensor, config: Sparse) -> float:
    """The share that goes; by the PQ index of the layer's weights where it is automatic."""
    if config.amount == "auto":
        return RULE.removable(pq_index.pq_index(rows.flatten(), RULE.p, RULE.q))
    return float(config.amount or 0.0)


def by_set(
    rows: Tensor, grams: Tensor, mask: Tensor | None, config: Sparse, code: Code | None
) -> tuple[Tensor, Tensor]:
    """Surgery on each set of rows under its own gram."""
    each = len(rows) // len(grams)
    choose: tuple[Choose, int] = (
        pattern(*config.kept_of) if config.pattern else share(amount_of(rows, config))
    )
    found = []
    for number, gram in enumerate(grams):
        part = slice(number * each, (number + 1) * each)
        nearest: Round | None = code.rounding(part) if code is not None else None
        found.append(operate(rows[part], gram, mask[part] if mask is not None else None, *choose, nearest))
    return torch.cat([each.rows for each in found]), torch.cat([each.mask for each in found])
