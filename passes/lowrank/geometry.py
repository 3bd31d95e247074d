"""How often a weight is used when one sample runs: what its cost is counted in."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor, fx

from hashcompile.core.layers import CONSUMERS, Kind, Layer, Window
from hashcompile.core.reshaping import Size
from hashcompile.core.signature import Batch
from hashcompile.core.sweep import walk


@dataclass(frozen=True)
class Geometry:
    """Of one sample, over all uses of a weight. Tokens of a linear layer are pixels, and what is read of a table is not
    multiplied."""

    shape: tuple[int, ...]  # of the weight
    inputs: int = 0  # pixels that it reads
    between: int = 0  # pixels when only the first spatial dim was convolved
    outputs: int = 0
    read: int = 0  # rows of a table that are looked up

    @property
    def kernel(self) -> tuple[int, ...]:
        return self.shape[2:]

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @property
    def dense(self) -> Size:
        """What the weight costs as it is."""
        numel = math.prod(self.shape)
        return Size(numel, numel * self.outputs)


def geometries(graph: fx.GraphModule, sample: Batch, layers: Collection[Layer]) -> dict[str, Geometry]:
    """Of `layers` without groups, by parameter."""
    found = {layer.parameter: Geometry(layer.view.shape) for layer in layers}
    readers = {name: layer.parameter for layer in layers for name in layer.consumers}
    for node, (x,) in walk(graph, [sample]):
        if parameter := readers.get(node.name):
            was = found[parameter]
            inputs, between, outputs, read = used(node, x, was.shape)
            found[parameter] = Geometry(
                was.shape,
                was.inputs + inputs,
                was.between + between,
                was.outputs + outputs,
                was.read + read,
            )
    return found


def used(node: fx.Node, x: Tensor, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """(inputs, between, outputs, read) of one use, as in `Geometry`."""
    kind = CONSUMERS[node.target][0]
    if kind is Kind.EMBEDDING:
        return 0, 0, 0, x.numel()
    if kind is Kind.LINEAR:
        tokens = math.prod(x.shape[:-1])
        return tokens, tokens, tokens, 0
    window = Window.of(node, shape)
    size = x.shape[-len(window.kernel) :]
    images = math.prod(x.shape[: -len(window.kernel) - 1])
    out = [int(window.out_size(extent, dim)) for dim, extent in enumerate(size)]
    return images * math.prod(size), images * math.prod([out[0], *size[1:]]), images * math.prod(out), 0
