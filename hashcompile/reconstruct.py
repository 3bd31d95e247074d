"""One layer that lost inputs: the weights with which it comes closest to what it used to compute.

The inputs x0 of the original layer (C0 channels) are told from the inputs x (C channels) that are left,

    x0 ~ T x + const,    T = argmin sum |x0 - T x|^2 + ridge |T - T0|^2,

with T0 what the removal itself did, and T is folded into the weights: W0 x0 ~ (W0 T) x. For a convolution x are the
channels of one pixel, and T serves all taps. A refit goes on to solve for all weights at once, taps included, held to
the fold. How strongly either is held is decided in `ridge.py`. The constant goes where the outputs can take it, a
bias or the running mean of the batch norm behind, as far as the samples can be trusted with it (`shrinkage.py`).

A sum keeps to what stands for what: T has the pattern of T0, and its entries alone are those of least squares, the
coefficients of columns that were merged.

The fold is that of interpolative decomposition (Chee et al. 2022, arXiv 2108.00065); solving for the weights is the
reconstruction of channel pruning (He, Zhang & Sun 2017, arXiv 1707.06168).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, fx

from hashcompile.calibrate import moments, statistics
from hashcompile.core.bias import bias_target, shared_bias
from hashcompile.core.graph import CompressedGraph, replace_tensor
from hashcompile.core.layers import Kind, Layer, arguments, attribute, channel_dim
from hashcompile.core.method import Statistics
from hashcompile.core.parallel import deterministic_map
from hashcompile.core.reshaping import Corrected
from hashcompile.output_error import relative
from hashcompile.ridge import LeastSquares
from hashcompile.shrinkage import signal_share

Correction = Literal["sum", "fold", "refit"]

WIDEST = 4096  # inputs of a layer, taps included, for which a gram is still solved
REFITTED = (Kind.LINEAR, Kind.CONV)


@dataclass(frozen=True)
class Narrowed:
    """What a layer was: the weight it should act like, and what the removal did to its inputs."""

    weight: Tensor  # the target: outputs as the layer has them now, inputs as the original had them
    inputs: Tensor  # (S, C0 / S, C / S) float64, T0: for each input of the original what stands for it now
    channels: Tensor | None = None  # those of the original that the target reads, where whole groups went
    block: int = 1  # consecutive inputs that go together; then `inputs` is of blocks

    def read(self, inputs: Sequence[Tensor], layer: Layer) -> Sequence[Tensor]:
        """Of the original layer's inputs, those that the target reads."""
        if self.channels is None:
            return inputs
        return [x.index_select(channel_dim(x, layer), self.channels) for x in inputs]


@dataclass(frozen=True)
class Use:
    """A node that reads the layer's weight, what it is given now, and what in the original; one a batch."""

    node: fx.Node
    inputs: Sequence[Tensor]
    old: Sequence[Tensor]


def reconstruct(
    graph: CompressedGraph,
    uses: Sequence[Use],
    layer: Layer,
    was: Narrowed,
    how: Correction,
    unshifted: dict[str, Tensor],
) -> Corrected:
    """Take the weights as they are, folded, or refitted: whichever comes closest on the calibration data, over all uses
    together. `unshifted`: what took a constant as it was before it did, to which what is taken now is added."""
    weight = attribute(graph, layer.parameter).detach()
    place = bias_target(uses[0].node, layer) if len(uses) == 1 else shared_bias([use.node for use in uses])
    wanted = [outputs(use.node, use.old, was.weight) for use in uses]
    before = Fit.of(uses, layer, weight, wanted, place is not None)
    best = before
    if was.inputs.shape[1] <= WIDEST:
        held = folded(layer, was, uses, place is not None, how)
        best = min(best, Fit.of(uses, layer, held, wanted, place is not None))
    if how == "refit" and layer.kind in REFITTED and layer.view.size[1] <= WIDEST:
        moved = refitted(layer, was.weight, best.weight, uses, place is not None)
        best = min(best, Fit.of(uses, layer, moved, wanted, place is not None))
    replace_tensor(graph, layer.parameter, best.weight)
    if place is not None:
        path, sign = place
        old_bias = unshifted.setdefault(path, attribute(graph, path).detach())
        replace_tensor(graph, path, (old_bias.double() + sign * best.shift).to(old_bias.dtype))
    return Corrected(layer.name, before.plain, best.error, limit(layer, was, how))


def limit(layer: Layer, was: Narrowed, how: Correction) -> str | None:
    """What of a correction is out of reach for a layer."""
    channels, inputs = was.inputs.shape[1], layer.view.size[1]
    if channels > WIDEST:
        most = f"{channels:,} inputs are more than the {WIDEST:,} whose least squares are still solved"
        return f"{most}: a constant at most makes up for what went"
    if how == "refit" and layer.kind not in REFITTED:
        return f"a {str(layer.kind).replace('_', ' ')} is folded, not refitted"
    if how == "refit" and inputs > WIDEST:
        return f"{inputs:,} inputs, taps included, are more than the {WIDEST:,} of a refit: it is folded"
    return None


@dataclass(frozen=True)
class Fit:
    """A weight, and how near a layer comes to the wanted outputs with it."""

    weight: Tensor
    shift: Tensor  # (N,) float64, what is to be added to the outputs: what they are off on average, drawn towards 0
    error: float  # relative, with that
    plain: float  # relative, without

    def __lt__(self, other: Fit) -> bool:
        return self.error < other.error

    @classmethod
    def of(
        cls,
        uses: Sequence[Use],
        layer: Layer,
        weight: Tensor,
        wanted: Sequence[Sequence[Tensor]],
        shifts: bool,
    ) -> Fit:
        got = [outputs(use.node, use.inputs, weight) for use in uses]
        pairs = list(zip(itertools.chain(*wanted), itertools.chain(*got), strict=True))
        sums = deterministic_map(lambda pair: gaps(*pair, channel_dim(pair[0], layer)), pairs)
        count, total, squares, energy = (torch.stack(each).sum(0) for each in zip(*sums, strict=True))
        mean = total / count.clamp_min(1)
        signal = signal_share(squares.sum().view(1), mean[None], int(count), float(count))
        shift = signal * mean if shifts else torch.zeros_like(mean)
        lost = squares.sum() - count * (shift * (2 * mean - shift)).sum()
        return cls(weight, shift, relative(lost, energy), relative(squares.sum(), energy))


def gaps(wanted: Tensor, got: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(samples, sum of the gap by channel, its squares by channel, energy of what was wanted), float64."""
    gap = (wanted.double() - got.double()).movedim(dim, 0).flatten(1)
    return (
        torch.tensor(float(gap.shape[1]), dtype=torch.float64),
        gap.sum(1),
        gap.square().sum(1),
        wanted.double().square().sum(),
    )


def outputs(node: fx.Node, inputs: Sequence[Tensor], weight: Tensor) -> list[Tensor]:
    """What the layer at `node` makes of `inputs` with another weight, without its bias."""
    given = arguments(node)
    operator: Any = node.target
    rest = {name: value for name, value in given.items() if name not in ("input", "weight", "bias")}
    return deterministic_map(lambda x: operator(x, weight, None, **rest), inputs)


def folded(layer: Layer, was: Narrowed, uses: Sequence[Use], shifts: bool, how: Correction) -> Tensor:
    """The target weight times T."""
    known = pooled([channel_moments(layer, len(was.inputs), was.block, use) for use in uses])
    solve = summed if how == "sum" else told
    found = [solve(one, prior) for one, prior in zip(systems(known, shifts), was.inputs, strict=True)]
    return narrow(was.weight, layer, torch.stack(found))


def told(system: LeastSquares, prior: Tensor) -> Tensor:
    """T, (C0, C)."""
    return system.solve(torch.eye(len(prior), dtype=torch.float64), prior)


def summed(system: LeastSquares, prior: Tensor) -> Tensor:
    """T with the pattern of `prior`, (C0, C): one coefficient at a time."""
    square = system.gram.diagonal()
    least = system.least * square.mean()
    if not least > 0:
        return prior
    return torch.where(prior != 0, (system.cross + least * prior) / (square + least), 0.0)


def narrow(weight: Tensor, layer: Layer, told: Tensor) -> Tensor:
    """`weight` with inputs (S, C0 / S) as the weight of `layer`, with inputs (S, C / S); told: (S, C0 / S, C / S)."""
    rows = replace(layer.view, shape=tuple(weight.shape)).rows(weight).double()
    sets, channels, _ = told.shape
    rows = rows.reshape(sets, rows.shape[0] // sets, channels, -1)
    rows = torch.einsum("snct,scd->sndt", rows, told).reshape(layer.view.size)
    return layer.view.weight(rows).to(weight.dtype).contiguous()


def refitted(layer: Layer, target: Tensor, held: Tensor, uses: Sequence[Use], shifts: bool) -> Tensor:
    """All weights of the layer anew, taps included, held to those in `held`."""
    found = systems(pooled([statistics(use.node, layer, use.inputs, use.old) for use in uses]), shifts)
    wanted = replace(layer.view, shape=tuple(target.shape)).rows(target).chunk(len(found))
    priors = layer.view.rows(held).chunk(len(found))
    rows = [one.solve(*given) for one, *given in zip(found, wanted, priors, strict=True)]
    return layer.view.weight(torch.cat(rows)).contiguous()


def systems(known: Statistics, shifts: bool) -> list[LeastSquares]:
    """Those of each set; of centred inputs where a constant has a place to go."""
    moments = zip(present(known.gram), present(known.cross), present(known.gram_before), strict=True)
    found = [LeastSquares(*one, samples=known.independent) for one in moments]
    if not shifts:
        return found
    means = zip(present(known.mean), present(known.mean_before), strict=True)
    return [one.about(known.count, *each) for one, each in zip(found, means, strict=True)]


def present(values: Tensor | None) -> Tensor:
    assert values is not None
    return values


def channel_moments(layer: Layer, sets: int, block: int, use: Use) -> Statistics:
    """Moments of the channels in front of a layer, (S, C / S); every pixel, or entry of a block, is a sample."""

    def channels(x: Tensor, _: int) -> Tensor:
        first = x.movedim(channel_dim(x, layer), 0)
        return first.reshape(sets, len(first) // sets // block, -1)

    return moments(use.inputs, use.old, channels)


def pooled(known: Sequence[Statistics]) -> Statistics:
    """Of all uses of a weight, whose samples count alike."""
    if len(known) == 1:
        return known[0]
    count = sum(each.count for each in known)

    def total(name: str) -> Tensor:
        return torch.stack([getattr(each, name) for each in known]).sum(0)

    def mean(name: str) -> Tensor:
        return torch.stack([getattr(each, name) * each.count for each in known]).sum(0) / max(1, count)

    return Statistics(
        count,
        sum(each.independent for each in known),
        gram=total("gram"),
        cross=total("cross"),
        gram_before=total("gram_before"),
        mean=mean("mean"),
        mean_before=mean("mean_before"),
    )
