"""Weights as codebook[group, index] * scale, fitted to what the layer computes rather than to its weights.

With inputs X, gram H = X'X and decoded rows D[n, k] = codebook[g(n), indices[n, k]] * scale[n], the output
error of a layer is

    E(D) = sum_n row_weights[n] * (W - D)[n] H (W - D)[n]'

The start is weighted k-means on W / scale, then error feedback along the inputs. Three steps then take turns,
none of which can raise E: indices by coordinate descent, scales in closed form, entries by least squares.
Without H the same turns are taken with H = I, where the best indices are simply the nearest entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hashcompile.core.errors import CalibrationError, WeightError
from hashcompile.core.kmeans import kmeans_1d
from hashcompile.core.parallel import one_thread

from .alternate import Alternation
from .chunk import Chunk
from .feedback import nearest, times
from .grid import GRID, snap_tables

CHUNK = 512  # rows that are worked on together: part of the result's definition, so never a matter of threads
SAMPLE = 1 << 21  # weights that place the first centroids of a table
STARTS = 12  # turns on the diagonal of H before error feedback
UNSEEN = 1e-6  # the weight of a set of rows whose inputs calibration never showed


@dataclass(frozen=True)
class CodebookFit:
    """A fitted weight matrix of N rows and K columns, with G tables for equal numbers of consecutive rows."""

    indices: Tensor  # (N, K) uint8
    codebook: Tensor  # (G, 2**bits) float32, each table sorted; a table of all whole numbers has them as signed bytes
    scale: Tensor  # (N,) float32
    error: float  # sqrt(E(D) / E(0)): relative error of the outputs; of the weights when there is no gram


def fit_codebook(
    rows: Tensor,
    bits: int,
    *,
    group_rows: int = 0,
    gram: Tensor | None = None,
    row_weights: Tensor | None = None,
    int8_grid: bool = False,
    damping: float = 0.01,
    turns: int = 8,
) -> CodebookFit:
    """Fit tables of `2**bits` entries and one scale a row to `rows: (N, K)`.

    Args:
        group_rows: rows that share a table; 0 for one table in all.
     the weights alone.
        row_weights: (N,), how much the error of each row counts; None for 1.
        int8_grid: entries are whole numbers in [-127, 127], the largest magnitude 127.
        damping: ridge on the gram as a share of its mean diagonal, for inputs that calibration did not show.
        turns: most turns of the alternation, which ends by itself once a turn gains little.

    The result is bit-identical for every number of threads.
    """
    _check(rows, gram)
    with one_thread() as threads:
        unit = float(rows.abs().max()) or 1.0  # weights are at most 1 inside: squares stay in range
        normal = rows.detach().double() / unit
        importance = torch.ones(len(rows)) if row_weights is None else row_weights
        importance = importance.double()
        group = torch.arange(len(rows)) // (group_rows or len(rows))
        columns = rows.shape[1]
        forms, factors, order = _quadratic_forms(
            None if gram is None else gram.reshape(-1, columns, columns), columns, damping
        )
        order = order.repeat_interleave(len(rows) // len(order), 0)  # (N, K)
        normal = normal.gather(1, order)
        chunks = [
            Chunk(
                normal[part].T.contiguous(),
                importance[part],
                group[part],
                2**bits,
                forms[sets],
                None if factors is None else factors[sets],
            )
            for part, sets in _pieces(len(rows), len(forms))
        ]
        fit = Alternation(chunks, torch.zeros(int(group[-1]) + 1, 2**bits, dtype=torch.float64), threads)

        whole_grid = int8_grid and 2**bits > 2 * GRID  # a table holds every integer: nothing to choose
        if whole_grid:
            _start_on_integers(fit)
        else:
            _start_on_centroids(fit, normal, forms if forms.ndim == 2 else forms.diagonal(dim1=1, dim2=2))
        if factors is not None:
            fit.each(lambda chunk: chunk.feed_back(fit.tables))
        fit.run(turns, tables=not whole_grid)
        if not int8_grid:
            fit.normalise_tables()
        elif not whole_grid:
            snap_tables(fit)
            fit.run(turns, tables=False)

        scale = (torch.cat([chunk.scale for chunk in chunks]) * unit).float()
        found = torch.cat([chunk.indices for chunk in chunks], 1).T
        tables = fit.tables
        if whole_grid:
            # as signed bytes, which a kernel multiplies as they are; of the two entries of -127 the first is no byte's
            found, tables = found.clamp(min=1).bitwise_xor(128), tables.roll(128, 1)
        indices = torch.empty(rows.shape, dtype=torch.uint8).scatter_(1, order, found)
        codebook = tables.float()
        decoded = codebook[group].gather(1, indices.long()) * scale[:, None]
        error = _relative_error(rows.double() / unit, decoded.double() / unit, gram, importance)
        return CodebookFit(indices, codebook, scale, error)


def _pieces(rows: int, sets: int) -> list[tuple[slice, slice]]:
    """What is worked on together: (rows, sets) of whole small sets, or of a part of one large set."""
    each = rows // sets
    if sets > 1 and each < CHUNK:
        step = CHUNK // each
        return [
            (slice(s * each, min(s + step, sets) * each), slice(s, s + step)) for s in range(0, sets, step)
        ]
    return [
        (slice(s * each + first, s * each + min(first + CHUNK, each)), slice(s, s + 1))
        for s in range(sets)
        for first in range(0, each, CHUNK)
    ]


def _check(rows: Tensor, gram: Tensor | None) -> None:
    if not torch.isfinite(rows).all():
        raise WeightError(f"weights of shape {tuple(rows.shape)} hold NaN or infinite values: nothing to fit")
    if gram is not None and not torch.isfinite(gram).all():
        raise CalibrationError("calibration gave inputs that are NaN or infinite; check the calibration data")


def _quadratic_forms(
    grams: Tensor | None, columns: int, damping: float
) -> tuple[Tensor, Tensor | None, Tensor]:
    """H of every set (S, K, K), L with H = L L' (S, K, K), and the orders of the inputs (S, K). Without inputs:
    ones (1, K), no L. A set weighs what its inputs weigh; one without inputs, next to nothing.
    """
    plain = torch.ones(1, columns, dtype=torch.float64), None, torch.arange(columns)[None]
    if grams is None:
        return plain
    means = grams.diagonal(dim1=1, dim2=2).double().mean(1)
    if not means.mean() > 0:
        return plain
    found = []
    for gram in grams:
        form, factor, order = _quadratic_form(gram, columns, damping)
        found.append((form.diag(), form.diag(), order) if factor is None else (form, factor, order))
    forms, factors, orders = zip(*found, strict=True)
    weight = (means / means.mean()).clamp_min(UNSEEN)[:, None, None]
    return torch.stack(forms) * weight, torch.stack(factors) * weight.sqrt(), torch.stack(orders)


def _quadratic_form(
    gram: Tensor | None, columns: int, damping: float
) -> tuple[Tensor, Tensor | None, Tensor]:
    """H (K, K), L with H = L L', and the order of the inputs (K,). Without inputs: ones (K,), no L.

    H has mean diagonal 1 before its ridge, and its inputs rise in importance: sweeps begin with the last.
    A gram that rounding left indefinite gets the ridge it needs.
    """
    mean = 0.0 if gram is None else float(gram.diagonal().double().mean())
    if gram is None or mean <= 0:
        return torch.ones(columns, dtype=torch.float64), None, torch.arange(columns)
    order = gram.diagonal().argsort(stable=True)
    form = gram[order][:, order].double() / mean
    form = (form + form.T) / 2
    while True:
        damped = form + damping * torch.eye(columns, dtype=form.dtype)
        factor, info = torch.linalg.cholesky_ex(damped)
        if int(info) == 0:
            return damped, factor, order
        damping = max(10 * damping, 1e-6)


def _start_on_centroids(fit: Alternation, rows: Tensor, diagonals: Tensor) -> None:
    """Scales: the root mean square of each row. Tables: k-means of weights / scale. Of H, the diagonals (S, K)."""
    diagonal = diagonals.repeat_interleave(len(rows) // len(diagonals), 0)  # (N, K)
    scale = ((rows.square() * diagonal).sum(1) / diagonal.sum(1)).sqrt()
    group = torch.cat([chunk.group for chunk in fit.chunks])
    importance = torch.cat([chunk.importance for chunk in fit.chunks])
    for g in range(len(fit.tables)):
        chosen = torch.nonzero(group == g)[:, 0]
        stride = -(-chosen.numel() * rows.shape[1] // SAMPLE)
        chosen = chosen[::stride]
        divisor = torch.where(scale > 0, scale, 1.0)[chosen, None]
        mass = (importance * scale.square())[chosen, None] * diagonal[chosen]
        centroids = kmeans_1d((rows[chosen] / divisor).numpy(), mass.numpy(), fit.tables.shape[1])
        fit.tables[g] = torch.from_numpy(centroids)
    first = 0
    for chunk in fit.chunks:
        chunk.scale = scale[first : first + chunk.rows.shape[1]]
        first += chunk.rows.shape[1]
    fit.run(STARTS, diagonal=True)


def _start_on_integers(fit: Alternation) -> None:
    """The whole int8 grid, and scales that reach the largest weight of each row."""
    fit.tables[:] = uniform_table()
    for chunk in fit.chunks:
        chunk.scale = chunk.rows.abs().amax(0) / GRID
        chunk.indices = nearest(chunk.levels(fit.tables), chunk.rows)


def uniform_table() -> Tensor:
    """(256,) float64, sorted: entry i is i - 128, a signed byte with its sign bit flipped; entry 0 is -127."""
    return (torch.arange(256, dtype=torch.float64) - 128).clamp(min=-GRID)


def _relative_error(rows: Tensor, decoded: Tensor, gram: Tensor | None, importance: Tensor) -> float:
    """sqrt(E(D) / E(0)), 0 for rows that produce nothing: the inputs are the gram's, without its ridge."""
    columns = rows.shape[1]
    form = (
        torch.ones(1, columns, dtype=torch.float64)
        if gram is None
        else gram.double().reshape(-1, columns, columns)
    )

    def energy(matrix: Tensor) -> float:
        return float(((matrix * times(form, matrix)).sum(0) * importance).sum())

    lost, whole = energy((rows - decoded).T), energy(rows.T)
    return (max(lost, 0.0) / whole) ** 0.5 if whole > 0 else 0.0
