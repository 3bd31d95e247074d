"""Transposed convolutions, and those of volumes, with dense weights -> convolutions of images, which kernels compute.

Given:  %y = aten.conv_transpose2d(%x, %w, %b, stride=s)
Result: %c = aten.conv2d(%x, %phases, %bs)              # (B, N * s * s, H, W): each of the s * s places of an output
        %y = the channels of %c, dealt out over (H * s, W * s), and cut to the size of %y

Given:  %y = aten.conv3d(%x (B, C, D, H, W), %w, %b)
Result: %c = aten.conv2d(slices of %x (B * OD, C * kd, H, W), %w')
        %y = %c as (B, N, OD, OH, OW)

An output of a transposed convolution at o reads the taps k of its kernel with k = o + p mod s alone: so there is a
plain convolution for each residue, the phases of Shi et al. 2016 (arXiv 1609.07009), with a kernel s times as small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import prod

import torch
from torch import Tensor, fx

from hashcompile.core.graph import call
from hashcompile.core.layers import Kind, Window, arguments, attribute, consumes, kind_of, unused
from hashcompile.lower.match import dtype_of, shape_of

aten = torch.ops.aten
CONV = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}


def plain_convolutions(graph: fx.GraphModule) -> None:
    """Rewrite every one with constant weights, in fp32, of which an output reads more than one channel: others have
    little to multiply, and would be one row of 32 that kernels take together.
    """
    for kind, make in ((Kind.CONV_TRANSPOSE, transposed), (Kind.CONV, sliced)):  # of volumes it is both
        for node in list(graph.graph.nodes):
            wanted = kind_of(node) is kind and (make is transposed or len(shape_of(node)) == 5)
            if wanted and constant_weights(graph, node):
                put(graph, node, make)


def constant_weights(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Are weight and bias held by the graph, and are the input's sizes known, but for the batch?"""
    given = arguments(node)
    held = [given["weight"], *([] if given["bias"] is None else [given["bias"]])]
    if any(each.op != "get_attr" for each in held) or not consumes(node, given["weight"]):
        return False
    x, weight = given["input"], attribute(graph, str(given["weight"].target))
    known = len(shape_of(x)) == weight.ndim and all(size.isdigit() for size in shape_of(x)[1:])
    several = known and int(shape_of(x)[1]) > given["groups"]
    return several and weight.numel() > 0 and all(dtype_of(each) is torch.float32 for each in (x, node))


def put(graph: fx.GraphModule, node: fx.Node, make: Callable[[fx.GraphModule, fx.Node], fx.Node]) -> None:
    """What `make` makes in the place of `node`."""
    with graph.graph.inserting_before(node):
        other = make(graph, node)
    other.meta = dict(node.meta)
    node.replace_all_uses_with(other)
    graph.graph.erase_node(node)


def convolved(
    graph: fx.GraphModule, name: str, x: fx.Node, weight: Tensor, bias: Tensor | None, window: Window
) -> fx.Node:
    """x (B, C, ...) by `weight`, with zeros around as `window` has them on both sides alike."""
    held = [None if each is None else constant(graph, name, each, x) for each in (weight, bias)]
    sides = list(window.stride), list(window.before), list(window.dilation)
    return call(graph.graph, CONV[weight.ndim - 2], x, *held, *sides, window.groups)


def constant(graph: fx.GraphModule, name: str, value: Tensor, like: fx.Node) -> fx.Node:
    path = unused(graph, f"{name}_plain")
    graph.register_buffer(path, value)
    node = graph.graph.get_attr(path)
    node.meta = {"val": like.meta["val"].new_empty(value.shape)}
    return node


def weights_of(graph: fx.GraphModule, node: fx.Node) -> tuple[Tensor, Tensor | None]:
    weight, bias = arguments(node)["weight"], arguments(node)["bias"]
    values = attribute(graph, str(weight.target)).detach()
    return values, None if bias is None else attribute(graph, str(bias.target)).detach()


def transposed(graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    given, emit = arguments(node), partial(call, graph.graph)
    weight, bias = weights_of(graph, node)
    dims = weight.ndim - 2
    x, out = given["input"], node.meta["val"].shape[2:]
    stride, padding, dilation = (
        tuple(given[name]) * (dims if len(given[name]) == 1 else 1)
        for name in ("stride", "padding", "dilation")
    )
    sizes = [int(size) for size in shape_of(x)[2:]]
    # as many taps as reach the last output, which may lie beyond what the kernel covers
    least: Sequence[int] = [
        -(-(p + o) // s) - i + 1 for p, o, s, i in zip(padding, out, stride, sizes, strict=True)
    ]
    ones = apart = (1,) * dims
    covered = ((k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True))
    if stride == ones and all(n <= size for n, size in zip(least, covered, strict=True)):
        dilation, apart, least = ones, dilation, ones  # one phase, whose taps may stay apart
    kernel = phases(weight, stride, dilation, given["groups"], least)
    taps = tuple(kernel.shape[2:])
    around = tuple(d * (tap - 1) for d, tap in zip(apart, taps, strict=True))
    plain = Window(taps, (1,) * dims, around, around, apart, given["groups"])
    repeated = None if bias is None else bias.repeat_interleave(prod(stride))
    y = convolved(graph, node.name, x, kernel, repeated, plain)
    if prod(stride) > 1:
        # (B, N, *strides, *sizes) -> (B, N, size 0 * stride 0, ...)
        y = emit(aten.unflatten.int, y, 1, [-1, *stride])
        pairs = [dim for d in range(dims) for dim in (2 + dims + d, 2 + d)]
        y = emit(aten.permute.default, y, [0, 1, *pairs])
        for d in range(dims):
            y = emit(aten.flatten.using_ints, y, 2 + d, 3 + d)
    return cut(graph, y, padding, out)


def phases(
    weight: Tensor, stride: Sequence[int], dilation: Sequence[int], groups: int, least: Sequence[int]
) -> Tensor:
    """Weight (C, N / groups, *kernel) of a transposed convolution -> (N * strides, C / groups, *taps) of a plain one.

    Rows are in the order (n, residue 0, ...); there are at least so many taps.
    """
    dims = weight.ndim - 2
    spread = [(size - 1) * d + 1 for size, d in zip(weight.shape[2:], dilation, strict=True)]
    taps = [max(n, -(-size // s)) for n, size, s in zip(least, spread, stride, strict=True)]
    whole = weight.new_zeros((*weight.shape[:2], *(t * s for t, s in zip(taps, stride, strict=True))))
    spots = (slice(0, size, d) for size, d in zip(spread, dilation, strict=True))
    whole[(slice(None), slice(None), *spots)] = weight
    # (groups, C / groups, N / groups, tap 0, residue 0, ...)
    parts = whole.reshape(
        groups, -1, weight.shape[1], *(n for pair in zip(taps, stride, strict=True) for n in pair)
    )
    of_taps, of_residues = [3 + 2 * d for d in range(dims)], [4 + 2 * d for d in range(dims)]
    parts = parts.permute(0, 2, *of_residues, 1, *of_taps)
    kernel = parts.reshape(-1, parts.shape[2 + dims], *taps)
    return kernel.flip(list(range(2, 2 + dims))).contiguous()


def cut(graph: fx.GraphModule, y: fx.Node, begin: Sequence[int], size: Sequence[int]) -> fx.Node:
    """y[begin : begin + size] in every dimension."""
    for d, (first, count) in enumerate(zip(begin, size, strict=True)):
        if first or count < y.meta["val"].shape[2 + d]:
            y = call(graph.graph, aten.slice.Tensor, y, 2 + d, first, first + count)
    return y


def sliced(graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    emit, x = partial(call, graph.graph), arguments(node)["input"]
    weight, bias = weights_of(graph, node)
    window, depth = Window.of(node, tuple(weight.shape)), int(node.meta["val"].shape[2])
    flat = image_of(window)
    zeros = [(window.before[0], window.after[0]), (0, 0), (0, 0)]
    if flat.before != flat.after:  # "same" with an even kernel
        zeros[1:] = zip(flat.before, flat.after, strict=True)
        flat = replace(flat, before=(0, 0), after=(0, 0))
    if any(map(any, zeros)):
        x = emit(aten.constant_pad_nd.default, x, [n for pair in reversed(zeros) for n in pair])
    reach = (depth - 1) * window.stride[0] + 1
    taps = [
        emit(aten.transpose.int, emit(aten.slice.Tensor, x, 2, begin, begin + reach, window.stride[0]), 1, 2)
        for begin in range(0, window.kernel[0] * window.dilation[0], window.dilation[0])
    ]
    volume = emit(aten.stack.default, taps, 3)  # (B, OD, C, kd, H, W)
    channels = emit(aten.flatten.using_ints, volume, 2, 3)
    image = emit(aten.flatten.using_ints, channels, 0, 1)  # (B * OD, C * kd, H, W)
    y = convolved(graph, node.name, image, weight.flatten(1, 2).contiguous(), bias, flat)
    return emit(aten.permute.default, emit(aten.unflatten.int, y, 0, [-1, depth]), [0, 2, 1, 3, 4])


def image_of(window: Window) -> Window:
    """Without its first dim."""
    return Window(
        window.kernel[1:],
        window.stride[1:],
        window.before[1:],
        window.after[1:],
        window.dilation[1:],
        window.groups,
    )
