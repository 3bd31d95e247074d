"""Activation statistics for the passes, collected in one sweep over the graph.

The sweep runs node by node over all batches, so that a pass can replace a weight between two nodes: every later layer
sees the inputs that the already compressed prefix really gives it. Each operator runs single-threaded and batches run
in parallel, so the sums are the same whatever the thread count.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from hashcompile.capture import Inputs, Signature
from hashcompile.core.errors import CalibrationError
from hashcompile.core.layers import CONSUMERS, Kind, Layer, Window, arguments, attribute
from hashcompile.core.method import Statistics
from hashcompile.core.parallel import deterministic_map

PARTS = 4  # partial sums of a gram: enough for any pool, few enough to hold (K, K) float64 each
CHUNK = 1 << 24  # floats of unfolded input at a time: 64 MiB

Batch = tuple[Any, ...]


def read_batches(calibration: Iterable[Inputs], signature: Signature) -> list[Batch]:
    """The calibration inputs as a checked list of flat tuples. Raises CalibrationError naming the batch."""
    if isinstance(calibration, (Tensor, dict, str)) or not isinstance(calibration, Iterable):
        raise CalibrationError(
            f"calibration must be an iterable of inputs like example_inputs, got one {type(calibration).__name__}: "
            "put it in a list"
        )
    batches = []
    for index, inputs in enumerate(calibration):
        try:
            batch = flatten(inputs, signature)
            signature.check(batch)
        except TypeError as error:
            raise CalibrationError(f"calibration batch {index}: {error}") from error
        for name, value in zip(signature.names, batch, strict=True):
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise CalibrationError(
                    f"calibration batch {index}: input {name!r} holds NaN or infinite values"
                )
        batches.append(tuple(value.detach() for value in batch))
    if not batches:
        raise CalibrationError(
            "calibration is empty: give some batches like example_inputs, or None for data-free"
        )
    if all(value.numel() == 0 for batch in batches for value in batch):
        raise CalibrationError("every calibration batch is empty: give at least one sample")
    return batches


def flatten(inputs: Inputs | Tensor, signature: Signature) -> Batch:
    """Inputs as the user gives them -> one flat tuple in the order of the graph's placeholders."""
    if isinstance(inputs, Tensor):
        return (inputs,)
    if isinstance(inputs, dict) and signature.keywords:
        unknown = set(inputs) - set(signature.names)
        missing = [name for name in signature.names if name not in inputs]
        if not unknown and not missing:
            return tuple(inputs[name] for name in signature.names)
    return tuple(pytree.tree_leaves(inputs))


def sweep(
    graph: fx.GraphModule,
    batches: Sequence[Batch],
    before: Callable[[fx.Node, list[Any]], None] | None = None,
) -> list[Any]:
    """Run `graph` over all batches at once, node by node; the outputs, one a batch.

    Before every node that consumes a weight, `before(node, inputs)` is called with that node's activations, one a
    batch; it may replace the weight.
    """
    nodes = list(graph.graph.nodes)
    last_use = {argument: node for node in nodes for argument in node.all_input_nodes}
    values: list[dict[fx.Node, Any]] = [{} for _ in batches]
    placeholders = [node for node in nodes if node.op == "placeholder"]
    for env, batch in zip(values, batches, strict=True):
        env.update(zip(placeholders, batch, strict=True))
    constants: dict[fx.Node, Any] = {}  # parameters, buffers and decoded weights: the same for every batch

    def constant(node: fx.Node) -> Any:
        if node not in constants:
            found = attribute(graph, str(node.target))
            constants[node] = found() if node.op == "call_module" else found
        return constants[node]

    def load_from(env: dict[fx.Node, Any]) -> Callable[[fx.Node], Any]:
        return lambda argument: env[argument] if argument in env else constant(argument)

    def execute(node: fx.Node, env: dict[fx.Node, Any]) -> Any:
        args, kwargs = fx.map_arg((node.args, node.kwargs), load_from(env))
        assert callable(node.target)
        return node.target(*args, **kwargs)

    with torch.no_grad():
        for node in nodes:
            if node.op == "output":
                return [fx.map_arg(node.args[0], load_from(env)) for env in values]
            if node.op != "call_function":
                continue
            if before is not None and node.target in CONSUMERS:
                source = activation(node)
                before(node, [env[source] for env in values])
            for argument in node.all_input_nodes:  # in this thread: the map below only reads
                if argument.op in ("get_attr", "call_module"):
                    constant(argument)
            for env, value in zip(values, deterministic_map(partial(execute, node), values), strict=True):
                env[node] = value
            for argument in node.all_input_nodes:
                if argument.op in ("get_attr", "call_module"):
                    del constants[argument]  # a decoded weight is dense: not kept for a second reader
                elif last_use[argument] is node:
                    for env in values:
                        del env[argument]
    raise AssertionError("a graph ends with its output node")


def activation(node: fx.Node) -> fx.Node:
    """The node whose value a weight layer works on."""
    source = node.args[1 - CONSUMERS[node.target][1]]
    assert isinstance(source, fx.Node)
    return source


def statistics(node: fx.Node, layer: Layer, inputs: Sequence[Tensor]) -> Statistics:
    """Sums over `inputs`, the activations in front of `node`, one a batch."""
    kind = CONSUMERS[node.target][0]
    if kind is Kind.EMBEDDING:
        counts = sum(torch.bincount(ids.flatten(), minlength=layer.view.shape[0]) for ids in inputs)
        assert isinstance(counts, Tensor)
        return Statistics(int(counts.sum()), None, None, counts.double())
    if kind is Kind.LINEAR:
        return gram_of([x.reshape(1, -1, x.shape[-1]).transpose(1, 2) for x in inputs], lambda x: x)
    if kind is Kind.CONV:
        window = Window.of(node, layer.view.shape)
        taps = max(1, layer.view.size[1] * window.groups)
        pieces = [
            piece
            for x in inputs
            for piece in batched(x, window).split(max(1, CHUNK // max(1, taps * pixels(x, window))))
        ]
        return gram_of(pieces, lambda x: unfold(x, window))
    # Transposed convolution: taps of one input pixel go to different outputs; their overlap is neglected.
    groups = int(arguments(node)["groups"])
    channels, _, *kernel = layer.view.shape
    plain = gram_of(
        [x.movedim(-len(kernel) - 1, 0).reshape(groups, channels // groups, -1) for x in inputs], lambda x: x
    )
    assert plain.gram is not None
    taps = torch.Size(kernel).numel()
    spread = torch.stack([torch.kron(gram, torch.eye(taps, dtype=gram.dtype)) for gram in plain.gram])
    return Statistics(plain.count, spread, None)


def gram_of(pieces: Sequence[Tensor], unfold: Callable[[Tensor], Tensor]) -> Statistics:
    """X'X and mean of pieces that `unfold` makes (S, K, samples), summed in an order fixed by their positions."""

    def part(first: int) -> tuple[int, Tensor, Tensor]:
        count, gram, total = 0, torch.zeros(()), torch.zeros(())
        for piece in pieces[first::PARTS]:
            x = unfold(piece).float()
            count += x.shape[-1]
            gram = gram + (x @ x.transpose(1, 2)).double()
            total = total + x.sum(-1, dtype=torch.float64)
        return count, gram, total

    with torch.no_grad():
        counts, grams, totals = zip(*deterministic_map(part, range(min(PARTS, len(pieces)))), strict=True)
    count = sum(counts)
    gram, total = (list(itertools.accumulate(sums))[-1] for sums in (grams, totals))
    return Statistics(count, gram, total / max(1, count))


def batched(x: Tensor, window: Window) -> Tensor:
    """Convolutions take (C, *spatial) too: add the batch dim."""
    return x.unsqueeze(0) if x.ndim == len(window.kernel) + 1 else x


def pixels(x: Tensor, window: Window) -> int:
    sizes = [int(window.out_size(size, dim)) for dim, size in enumerate(x.shape[-len(window.kernel) :])]
    return torch.Size(sizes).numel()


def unfold(x: Tensor, window: Window) -> Tensor:
    """Inputs (B, C, *spatial) as the columns that the output pixels read: (groups, C/groups * taps, samples)."""
    batch, channels, *spatial = x.shape
    margins = reversed(list(zip(window.before, window.after, strict=True)))  # pad counts from the last dim
    padded = torch.nn.functional.pad(x, [amount for margin in margins for amount in margin])
    out = [int(window.out_size(size, dim)) for dim, size in enumerate(spatial)]
    taps = []
    for offset in itertools.product(*map(range, window.kernel)):
        region = padded
        for dim, position in enumerate(offset):
            start, stride = position * window.dilation[dim], window.stride[dim]
            region = region.narrow(dim + 2, start, stride * (out[dim] - 1) + 1)[
                (slice(None),) * (dim + 2) + (slice(None, None, stride),)
            ]
        taps.append(region.reshape(batch, channels, -1))
    columns = torch.stack(taps, 2)  # (B, C, taps, pixels)
    columns = columns.reshape(batch, window.groups, -1, columns.shape[-1])
    return columns.permute(1, 2, 0, 3).reshape(window.groups, columns.shape[2], -1)
