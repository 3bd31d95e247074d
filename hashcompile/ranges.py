"""Static ranges of the tensors that chains keep in 8 bits, from what calibration inputs make of them.

One sweep collects a histogram of every such tensor. The range [low, high] with low <= 0 <= high is then the one of
least expected squared error: with the step s = (high - low) / 255,

    E(low, high) = sum over x in the range, x != 0, of s^2 / 12   +   sum over x outside of it of (x - nearest bound)^2

rounding error being uniform in a step, and zero exact, as a whole number stands for it. (Banner et al., Post training
4-bit quantization, arXiv 1810.05723, for the balance of clipping against rounding; here on the histogram, no model.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from hashcompile.core.errors import ArtifactError
from hashcompile.core.graph import CompressedGraph
from hashcompile.core.method import Compute
from hashcompile.core.rounding import MEASURED, Range
from hashcompile.core.signature import Batch
from hashcompile.core.sweep import sweep
from hashcompile.lower.select import select
from hashcompile.lower.steps import Chain, Kind

Float64 = npt.NDArray[np.float64]

SIDE = (
    4096  # bins on either side of zero, the outermost half of one side in use: eight or more for every level
)
SAMPLES = 1 << 20  # values of a tensor that are counted in one batch
FRACTIONS = 2.0 ** (-np.arange(97) / 16)  # of the extremes, tried as bounds: from all of it down to 1/64


@dataclass(frozen=True)
class Ranges:
    """Ranges by node, and the digest of these nodes and of the weights: behind others they mean nothing."""

    of: dict[str, Range] = field(default_factory=dict)
    weights: str = ""

    def valid(self, graph: CompressedGraph) -> Mapping[str, Range]:
        """The ranges, where the graph's weights are still those; nothing after training: images are measured then."""
        return self.of if self.of and self.weights == digest(graph, self.of) else {}

    def describe(self) -> dict[str, Any]:
        return {"weights": self.weights, "of": self.of}

    @classmethod
    def restore(cls, description: Any) -> Ranges:
        """Inverse of `describe`. Raises ArtifactError for what cannot be ranges."""
        try:
            of = {
                str(name): Range(float(scale), int(zero)) for name, (scale, zero) in description["of"].items()
            }
            weights = str(description["weights"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ArtifactError(f"its ranges of activations cannot be read: {error}") from error
        for name, (scale, zero) in of.items():
            if not (0 <= scale < float("inf") and 0 <= zero <= 255):
                raise ArtifactError(f"the activations of {name} have the scale {scale} and the zero {zero}")
        return cls(of, weights)


def digest(graph: CompressedGraph, names: Collection[str]) -> str:
    """SHA-256 of every tensor of a graph, by name, and of what the nodes of these names are, and whose outputs."""
    hasher = hashlib.sha256()
    tensors: dict[str, Tensor] = {}
    tensors |= dict(graph.named_parameters(remove_duplicate=False))
    tensors |= dict(graph.named_buffers(remove_duplicate=False))
    for name, tensor in sorted(tensors.items()):
        hasher.update(name.encode())
        hasher.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
    for node in graph.graph.nodes:
        if node.name in names:
            hasher.update(f"{node.name} {node.target} {weights_behind(node)}".encode())
    return hasher.hexdigest()


def weights_behind(node: fx.Node) -> list[str]:
    """What the nearest layer reads, along first inputs."""
    while inputs := node.all_input_nodes:
        if held := [str(each.target) for each in inputs if each.op in ("get_attr", "call_module")]:
            return held
        node = inputs[0]
    return []


def measure(graph: CompressedGraph, compute: Compute, batches: Sequence[Batch]) -> Ranges:
    """The ranges of all chain tensors of `graph` on `batches`; none without batches."""
    selection = select(graph, compute)
    tensors = {node: None for chain in selection.chains for node in chain.tensors if node in chain.read}
    if not tensors or not batches:
        return Ranges()
    flat = selection.graph
    (end,) = [node for node in flat.graph.nodes if node.op == "output"]
    with flat.graph.inserting_before(end):
        end.args = (tuple(flat.graph.call_function(histogram, (node,)) for node in tensors),)
    flat.graph.eliminate_dead_code()
    merged = [merge(parts) for parts in zip(*sweep(flat, batches), strict=True)]
    found = {node.name: best_range(*counts) for node, counts in zip(tensors, merged, strict=True)}
    for chain in selection.chains:
        share_levels(chain, found)
    return Ranges(found, digest(graph, found))


def share_levels(chain: Chain, ranges: dict[str, Range]) -> None:
    """A maximum is one of the levels that it was taken of, as a sample and zero are: in their range it is exact."""
    for step in chain.steps:
        if (step.kind is Kind.MAX_POOL or step.keeps_levels) and step.output.name in ranges:
            ranges[step.output.name] = ranges[step.source.name]


def histogram(x: Tensor) -> tuple[Tensor, int]:
    """(counts: (2 * SIDE,) int64, e): bin i counts the x != 0 of which floor(x / 2^e) is i - SIDE.

    The width is a power of two, so counts of a narrower one add up to those of a wider one exactly.
    """
    values = x.flatten()
    values = values[:: values.numel() // SAMPLES | 1]
    values = values[values.isfinite() & (values != 0)].double()
    largest = float(values.abs().max()) if values.numel() else 0.0
    exponent = int(np.frexp(largest)[1]) - (SIDE.bit_length() - 1)
    place = torch.floor(values / 2.0**exponent).long().clamp(-SIDE, SIDE - 1) + SIDE
    return torch.bincount(place, minlength=2 * SIDE), exponent


def merge(parts: Sequence[tuple[Tensor, int]]) -> tuple[Float64, float]:
    """Counts of all batches in bins of one width, and that width."""
    exponent = max((e for counts, e in parts if counts.any()), default=0)
    total = np.zeros(2 * SIDE)
    for counts, e in parts:
        if counts.any():
            places = (np.arange(2 * SIDE) - SIDE >> (exponent - e)) + SIDE
            total += np.bincount(places, counts.numpy(), minlength=2 * SIDE)
    return total, 2.0**exponent


def best_range(counts: Float64, width: float) -> Range:
    """The range of least expected squared error; MEASURED where nothing was seen but zeros."""
    if not counts.any():
        return MEASURED
    high, above, cost_above = clipped(counts[SIDE:], width)
    low, below, cost_below = clipped(counts[SIDE - 1 :: -1], width)
    step = (high[:, None] + low[None, :]) / 255
    inside = counts.sum() - above[:, None] - below[None, :]
    error = inside * step**2 / 12 + cost_above[:, None] + cost_below[None, :]
    i, j = np.unravel_index(int(np.argmin(np.where(step > 0, error, np.inf))), error.shape)
    scale = float(np.float32(step[i, j]))
    return Range(scale, min(255, max(0, round(low[j] / scale))))


def clipped(counts: Float64, width: float) -> tuple[Float64, Float64, Float64]:
    """For one side of zero: bounds to try, how many values lie beyond each, and their squared distance from it."""
    used = int(np.flatnonzero(counts)[-1]) + 1 if counts.any() else 0
    bounds = FRACTIONS * used * width if used else np.zeros(1)
    centres = (np.arange(len(counts)) + 0.5) * width
    beyond = np.maximum(centres[None, :] - bounds[:, None], 0)
    return bounds, ((beyond > 0) * counts).sum(1), (beyond**2 * counts).sum(1)
