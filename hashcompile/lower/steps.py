"""What a chain is made of: steps that our kernels run on 8-bit integers, and the tensors between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from torch import fx

from hashcompile.core.layers import Window, arguments
from hashcompile.core.onnx_op import OnnxOp
from hashcompile.lower.pointwise import Activation
from hashcompile.lower.subsample import Subsample


class Kind(IntEnum):
    CONV = 0
    MAX_POOL = 1
    AVERAGE_POOL = 2
    GLOBAL_AVERAGE = 3
    ADD = 4
    SUBSAMPLE = 5


@dataclass(frozen=True, eq=False)
class Step:
    """act(kind(source) + other), which `nodes` compute in the graph; the last of them is its output."""

    kind: Kind
    source: fx.Node
    nodes: tuple[fx.Node, ...]
    other: fx.Node | None = None
    op: OnnxOp | None = None  # of a convolution
    window: Window | None = None  # of a convolution, a pool or a subsampling
    subsample: Subsample | None = None
    includes_padding: bool = False  # an average counts the zeros around the image
    activation: Activation = Activation.NONE
    low: float = 0.0  # bounds of CLIP
    high: float = 0.0

    @property
    def output(self) -> fx.Node:
        return self.nodes[-1]

    @property
    def keeps_levels(self) -> bool:
        """Is every value of the output one of the source's, or zero, in the same range: rounded already?"""
        return self.kind is Kind.SUBSAMPLE and self.activation is Activation.NONE

    @property
    def bias(self) -> Any:
        """The node of a convolution's bias; None without one."""
        return arguments(self.nodes[0])["bias"]

    @property
    def reads(self) -> tuple[fx.Node, ...]:
        return (self.source,) if self.other is None else (self.source, self.other)


@dataclass(frozen=True, eq=False)
class Chain:
    """Steps in an order in which they can run, and the values that cross the border."""

    inputs: tuple[fx.Node, ...]
    steps: tuple[Step, ...]
    outputs: tuple[fx.Node, ...]

    @property
    def tensors(self) -> tuple[fx.Node, ...]:
        """The inputs, then the output of every step: the position of a tensor is its number."""
        return (*self.inputs, *(step.output for step in self.steps))

    @property
    def read(self) -> frozenset[fx.Node]:
        """The tensors that a step reads, and that are rounded to integers therefore."""
        return frozenset(node for step in self.steps for node in step.reads)

    @property
    def convolutions(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.kind is Kind.CONV)


def shape_of(step: Step, source: tuple[Any, ...]) -> tuple[Any, ...]:
    """The shape of a step's output from that of its source; sizes may be symbolic."""
    match step.kind:
        case Kind.ADD:
            return source
        case Kind.GLOBAL_AVERAGE:
            return (*source[:2], *(1 for _ in source[2:]))
    assert step.window is not None
    sizes = (step.window.out_size(size, dim) for dim, size in enumerate(source[2:]))
    channels = math.prod(step.output.meta["val"].shape[1:2])
    return (source[0], channels, *sizes)
