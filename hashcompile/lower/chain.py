"""Regions of a network in which activations can stay 8-bit integers: chains of steps.

Given:  %c = aten.conv2d(%x, %w, %b);  %s = aten.add(%c, %r);  %y = aten.relu(%s);  %p = aten.max_pool2d(%y, ...)
Result: Step(CONV, source=x, other=r, nodes=(c, s, y), activation=RELU), Step(MAX_POOL, source=y, nodes=(p,))

A chain is convex: no path leaves it and comes back, so one node can stand for it. Every value gets a level, the number
of times that a path to it left the steps; steps of one level, connected by the tensors between them, make a chain.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import torch
from torch import fx

from hashcompile.core.layers import Window, arguments
from hashcompile.core.onnx_op import OnnxOp
from hashcompile.lower.subsample import Subsample, subsample_of

aten = torch.ops.aten
UNBOUNDED = torch.finfo(torch.float32).max


class Kind(IntEnum):
    CONV = 0
    MAX_POOL = 1
    AVERAGE_POOL = 2
    GLOBAL_AVERAGE = 3
    ADD = 4
    SUBSAMPLE = 5


class Activation(IntEnum):
    NONE = 0
    RELU = 1
    CLIP = 2
    GELU = 3
    GELU_TANH = 4
    SILU = 5
    HARD_SWISH = 6


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


def find_chains(graph: fx.Graph, ops: Mapping[fx.Node, OnnxOp]) -> tuple[Chain, ...]:
    """The chains of a graph, in the order of their last steps; `ops` are the nodes that our kernels take.

    There are none where an operator works in place: a step must see the values that the graph's order gives it.
    """
    nodes = list(graph.nodes)
    if any(mutates(node) for node in nodes):
        return ()
    steps = find_steps(nodes, ops)
    order = {node: position for position, node in enumerate(nodes)}
    chains = [
        chain
        for members in regions(nodes, steps)
        if worthwhile(chain := make_chain(sorted(members, key=lambda step: order[step.output])))
    ]
    return tuple(chains)


def mutates(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and bool(schema.is_mutable)


def find_steps(nodes: Iterable[fx.Node], ops: Mapping[fx.Node, OnnxOp]) -> dict[fx.Node, Step]:
    """Every step by its output; what follows a convolution is taken into its step where nobody else reads it."""
    steps: dict[fx.Node, Step] = {}
    order: dict[fx.Node, int] = {}
    for position, node in enumerate(nodes):
        order[node] = position
        if (activation := match_activation(node)) is not None:
            of = node.args[0]
            step = steps.get(of) if isinstance(of, fx.Node) else None
            if step is not None and step.activation is Activation.NONE and only_reader(node, step.output):
                del steps[step.output]
                which, low, high = activation
                steps[node] = replace(step, nodes=(*step.nodes, node), activation=which, low=low, high=high)
        elif (addends := match_add(node)) is not None:
            open_ended = [
                (order[step.output], step, other)
                for addend, other in (addends, addends[::-1])
                if (step := steps.get(addend)) is not None
                and takes_residual(step)
                and only_reader(node, addend)
                and other is not addend
            ]
            if open_ended:
                _, step, other = max(open_ended, key=lambda entry: entry[0])
                del steps[step.output]
                steps[node] = replace(step, nodes=(*step.nodes, node), other=other)
            else:
                steps[node] = Step(Kind.ADD, addends[0], (node,), other=addends[1])
        elif (step := subsampling(node, steps)) is not None:
            if len(step.nodes) > 1:
                del steps[step.nodes[-2]]
            steps[node] = step
        elif (step := match_window(node, ops)) is not None:
            steps[node] = step
    # a copy is worth no rounding
    return {output: step for output, step in steps.items() if not (step.subsample and step.subsample.is_copy)}


def only_reader(node: fx.Node, of: fx.Node) -> bool:
    return set(of.users) == {node}


def takes_residual(step: Step) -> bool:
    return step.kind is Kind.CONV and step.other is None and step.activation is Activation.NONE


def subsampling(node: fx.Node, steps: Mapping[fx.Node, Step]) -> Step | None:
    """The step of a slice or a pad, joined with the one it reads where nobody else does."""
    found = subsample_of(node) if is_image(node) else None
    if found is None:
        return None
    source = arguments(node)["self"]
    earlier = steps.get(source)
    if earlier is None or not earlier.keeps_levels or not only_reader(node, source):
        return Step(Kind.SUBSAMPLE, source, (node,), window=found.window, subsample=found)
    assert earlier.subsample is not None
    both = earlier.subsample.then(found)
    return replace(earlier, nodes=(*earlier.nodes, node), window=both.window, subsample=both)


def match_activation(node: fx.Node) -> tuple[Activation, float, float] | None:
    """(which, low, high) of a node that applies an activation to an image."""
    return activation_of(node) if is_image(node) else None


def activation_of(node: fx.Node) -> tuple[Activation, float, float] | None:
    """(which, low, high) of a node that applies an activation to its first argument."""
    if node.op != "call_function" or not is_float(node):
        return None
    match node.target:
        case aten.relu.default:
            return Activation.RELU, 0.0, 0.0
        case aten.relu6.default:
            return Activation.CLIP, 0.0, 6.0
        case aten.hardtanh.default:
            given = arguments(node)
            return Activation.CLIP, float(given["min_val"]), float(given["max_val"])
        case aten.clamp.default:
            given = arguments(node)
            low = -UNBOUNDED if given["min"] is None else float(given["min"])
            return Activation.CLIP, low, UNBOUNDED if given["max"] is None else float(given["max"])
        case aten.gelu.default:
            tanh = arguments(node)["approximate"] == "tanh"
            return Activation.GELU_TANH if tanh else Activation.GELU, 0.0, 0.0
        case aten.silu.default:
            return Activation.SILU, 0.0, 0.0
        case aten.hardswish.default:
            return Activation.HARD_SWISH, 0.0, 0.0
    return None


def match_add(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """The addends, where both are images of one shape."""
    return addends_of(node) if is_image(node) else None


def addends_of(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """The addends, where both are float32 and of one shape."""
    if node.target is not aten.add.Tensor or not is_float(node):
        return None
    given = arguments(node)
    first, second = given["self"], given["other"]
    if given["alpha"] != 1 or not all(isinstance(x, fx.Node) and is_float(x) for x in (first, second)):
        return None
    shapes = {str(tuple(x.meta["val"].shape)) for x in (first, second)}
    return (first, second) if len(shapes) == 1 else None


def match_window(node: fx.Node, ops: Mapping[fx.Node, OnnxOp]) -> Step | None:
    """A convolution that our kernels take, a pool, or an average over all pixels."""
    if node.op != "call_function" or not node.args or not isinstance(source := node.args[0], fx.Node):
        return None
    if not is_image(source):
        return None
    op = ops.get(node)
    if op is not None and op.operator == "CodebookConv":
        weight: Any = node.args[1]
        window = Window.of(node, tuple(weight.meta["val"].shape))
        return Step(Kind.CONV, source, (node,), op=op, window=window)
    match node.target:
        case aten.max_pool1d.default | aten.max_pool2d.default:
            pooled = pool_window(node)
            return None if pooled is None else Step(Kind.MAX_POOL, source, (node,), window=pooled)
        case aten.avg_pool1d.default | aten.avg_pool2d.default:
            return match_average(node, source)
        case aten.adaptive_avg_pool1d.default | aten.adaptive_avg_pool2d.default:
            if set(arguments(node)["output_size"]) == {1}:
                return Step(Kind.GLOBAL_AVERAGE, source, (node,))
        case aten.mean.dim:
            given, rank = arguments(node), source.meta["val"].ndim
            dims = {dim % rank for dim in given["dim"] or ()}
            if dims == set(range(2, rank)) and given["dtype"] is None:
                return Step(Kind.GLOBAL_AVERAGE, source, (node,))
    return None


def match_average(node: fx.Node, source: fx.Node) -> Step | None:
    """An average pool. What `ceil_mode` adds to the image is never counted, unlike padding."""
    given, window = arguments(node), pool_window(node)
    if window is None or given.get("divisor_override") is not None:
        return None
    counted = bool(given["count_include_pad"]) and any(window.before)
    if counted and window.after != window.before:
        return None
    return Step(Kind.AVERAGE_POOL, source, (node,), window=window, includes_padding=counted)


def pool_window(node: fx.Node) -> Window | None:
    """The window of a pool. With `ceil_mode` it may reach further behind the image: None if the image's size, and so
    how far, is not known.
    """
    given = arguments(node)
    value, pooled = node.args[0].meta["val"], node.meta["val"]  # type: ignore[union-attr]
    dims = value.ndim - 2

    def per_dim(value: Any) -> tuple[int, ...]:
        entries = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        return entries * dims if len(entries) == 1 else entries

    kernel, before = per_dim(given["kernel_size"]), per_dim(given["padding"])
    stride = per_dim(given["stride"] or given["kernel_size"])
    window = Window(kernel, stride, before, before, per_dim(given.get("dilation", 1)), 1)
    if not given["ceil_mode"]:
        return window
    sizes, wanted = value.shape[2:], pooled.shape[2:]
    if not all(isinstance(size, int) for size in (*sizes, *wanted)):
        return None
    reach = (dilation * (k - 1) + 1 for dilation, k in zip(window.dilation, kernel, strict=True))
    ends = ((out - 1) * step + span for out, step, span in zip(wanted, stride, reach, strict=True))
    after = tuple(max(end - pad - size, pad) for end, pad, size in zip(ends, before, sizes, strict=True))
    if any(pad >= k for pad, k in zip(after, kernel, strict=True)):  # ONNX Runtime pads less than a kernel
        return None
    return replace(window, after=after)


def is_float(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


def is_image(node: fx.Node) -> bool:
    """(B, C, L) or (B, C, H, W), of float32."""
    return is_float(node) and node.meta["val"].ndim in (3, 4)


def regions(nodes: Iterable[fx.Node], steps: Mapping[fx.Node, Step]) -> list[list[Step]]:
    """Steps that belong together, each list of one level and connected."""
    level: dict[fx.Node, int] = {}
    region: dict[fx.Node, list[Step]] = {}
    for node in nodes:
        step = steps.get(node)
        if step is None:
            level[node] = max((level[read] + (read in steps) for read in node.all_input_nodes), default=0)
            continue
        level[node] = max(level[read] for read in step.reads)
        region[node] = [step]
        for read in step.reads:
            if read in steps and level[read] == level[node] and region[read] is not region[node]:
                joined = region[read] + region[node]
                region.update((member.output, joined) for member in joined)
    return list({id(members): members for members in region.values()}.values())


def make_chain(steps: list[Step]) -> Chain:
    inside = {step.output for step in steps}
    within = {node for step in steps for node in step.nodes}
    inputs = dict.fromkeys(read for step in steps for read in step.reads if read not in inside)
    outputs = tuple(step.output for step in steps if any(user not in within for user in step.output.users))
    return Chain(tuple(inputs), tuple(steps), outputs)


def worthwhile(chain: Chain) -> bool:
    """At least two convolutions, one of them on a tensor that never has to be float."""
    inside = {step.output for step in chain.steps}
    kept = any(read in inside for step in chain.convolutions for read in step.reads)
    return kept and len(chain.convolutions) > 1


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
