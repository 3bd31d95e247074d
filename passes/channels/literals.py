"""Sizes, counts and positions that a graph holds as literals, rewritten for what is left of each tensor."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from hashcompile.core.errors import GraphError
from hashcompile.core.layers import arguments, unused
from hashcompile.passes.channels.groups import ChannelGroups
from hashcompile.passes.channels.resolve import Layout
from hashcompile.passes.channels.rules.table import packets
from hashcompile.passes.channels.trace import CONSTANTS

aten = torch.ops.aten


class Cut:
    """The shapes of a graph behind a cut, beside those in front of it."""

    def __init__(self, channels: ChannelGroups, gone: Tensor) -> None:
        self.graph, self.facts, self.parameters = (
            channels.graph,
            channels.trace.facts,
            channels.trace.parameters,
        )
        self.layouts, self.resolved, self.gone = channels.layouts, channels.resolved, gone
        self.sizes: dict[fx.Node, Any] = {}  # whole numbers that nodes compute, behind the cut
        for node, layouts in self.layouts.items():
            for layout in layouts:
                if layout is not None and layout.classes.numel() and bool(gone[layout.classes].all()):
                    raise GraphError(f"{node.name} would be left without channels")

    def kept(self, node: fx.Node, part: int = 0) -> tuple[int, Tensor] | None:
        """(dim, kept indices) of a tensor that loses some; of a list, of one part."""
        layout = self.layout(node, part)
        if layout is None or layout.dim is None or not bool((mask := self.gone[layout.classes]).any()):
            return None
        return layout.dim, torch.nonzero(~mask).flatten()

    def layout(self, node: fx.Node, part: int = 0) -> Layout | None:
        if node.op == "get_attr":
            held = self.parameters.by_name.get(str(node.target))
            if held is None:
                return None
            if held.elements is not None:
                return self.resolved.layout(held.elements)
            return Layout(0, self.resolved.of(held.dims[0])) if held.tensor.ndim == 1 and held.dims else None
        parts = self.layouts.get(node)
        return parts[part] if parts else None

    def shape(self, node: fx.Node, part: int | None = None) -> tuple[int, ...]:
        """The shape behind the cut."""
        before: Any = self.facts.shapes[node] if part is None else self.facts.shapes[node][part]
        kept = self.kept(node, part or 0)
        return tuple(len(kept[1]) if kept and dim == kept[0] else size for dim, size in enumerate(before))

    def touches(self, node: fx.Node) -> bool:
        """Does an activation that a node reads or returns lose channels?"""
        around = [each for each in (node, *node.all_input_nodes) if self.facts.shapes.get(each) is not None]
        return any(
            self.kept(each, part) for each in around for part in range(parts_of(self.facts.shapes[each]))
        )

    def follow(self, node: fx.Node) -> None:
        """Note what a node that computes a size gives behind the cut."""
        if isinstance(self.facts.values.get(node), int) and callable(node.target):
            if node.target is aten.sym_size.int:
                source, dim = node.args
                self.sizes[node] = self.shape(source)[dim]  # type: ignore[arg-type, index]
            elif all(each in self.sizes for each in node.all_input_nodes):
                args, kwargs = fx.map_arg((node.args, node.kwargs), self.sizes.__getitem__)
                self.sizes[node] = node.target(*args, **kwargs)
            else:
                self.sizes[node] = self.facts.values[node]

    def stands_for(self, new: fx.Node, old: fx.Node) -> None:
        """`new` has the value of `old` from now on."""
        self.layouts[new], self.facts.shapes[new] = self.layouts[old], self.facts.shapes[old]
        new.meta = dict(old.meta)

    def resized(self, node: fx.Node, given: Sequence[Any], wanted: Sequence[int]) -> list[Any]:
        """Literal and symbolic sizes so that they give `wanted`; -1 stays."""
        return [self.size(node, each, size) for each, size in zip(given, wanted, strict=True)]

    def size(self, node: fx.Node, given: Any, wanted: int) -> Any:
        if not isinstance(given, fx.Node):
            return given if given == -1 else wanted
        now = self.sizes[given]
        if now == wanted:
            return given
        common = math.gcd(now, wanted)
        up, down = wanted // common, now // common
        with self.graph.graph.inserting_before(node):
            if given.target is operator.mul and isinstance(given.args[1], int) and given.args[1] % down == 0:
                return self.graph.graph.call_function(
                    operator.mul, (given.args[0], given.args[1] // down * up)
                )
            more = self.graph.graph.call_function(operator.mul, (given, up))
            return self.graph.graph.call_function(operator.floordiv, (more, down)) if down > 1 else more


def parts_of(shape: Any) -> int:
    return len(shape) if isinstance(shape, list) else 1


def view(cut: Cut, node: fx.Node) -> None:
    node.update_arg(1, cut.resized(node, node.args[1], cut.shape(node)))  # type: ignore[arg-type]


def unflatten(cut: Cut, node: fx.Node) -> None:
    given = arguments(node)
    sizes, shape = given["sizes"], cut.shape(node)
    dim = int(given["dim"]) % (len(shape) - len(sizes) + 1)
    node.update_arg(2, cut.resized(node, sizes, shape[dim : dim + len(sizes)]))


def slice_(cut: Cut, node: fx.Node) -> None:
    given = arguments(node)
    source = given["self"]
    kept, dim, size = cut_along(cut, source, given["dim"])
    if kept is None:
        return
    start, end, step = (cut.facts.value(given[name]) for name in ("start", "end", "step"))
    positions = torch.arange(size)[slice(start, end, step)]
    if step != 1:
        gather(cut, node, source, dim, positions)
    elif len(positions):
        start, end = (int((kept < bound).sum()) for bound in (int(positions[0]), int(positions[-1]) + 1))
        node.args, node.kwargs = (source, dim, start, end), {}


def narrow(cut: Cut, node: fx.Node) -> None:
    given = arguments(node)
    kept, dim, size = cut_along(cut, given["self"], given["dim"])
    if kept is not None:
        start, length = cut.facts.value(given["start"]) % size, cut.facts.value(given["length"])
        first, last = (int((kept < bound).sum()) for bound in (start, start + length))
        node.args = (given["self"], dim, first, last - first)


def select(cut: Cut, node: fx.Node) -> None:
    given = arguments(node)
    kept, _, size = cut_along(cut, given["self"], given["dim"])
    if kept is not None:
        node.update_arg(2, int((kept < cut.facts.value(given["index"]) % size).sum()))


def split(cut: Cut, node: fx.Node) -> None:
    given = arguments(node)
    kept, dim, _ = cut_along(cut, given["self"], given["dim"])
    if kept is not None:
        parts = [cut.shape(node, part)[dim] for part in range(parts_of(cut.facts.shapes[node]))]
        node.target = aten.split_with_sizes.default
        node.args, node.kwargs = (given["self"], parts, dim), {}


def pad(cut: Cut, node: fx.Node) -> None:
    given = arguments(node)
    kept = cut.kept(node)
    if kept is None:
        return
    dim, indices = kept
    amounts = list(given["pad"])
    place = 2 * (len(cut.shape(node)) - 1 - dim)
    if place < len(amounts) and isinstance(amounts[place], int):
        end = cut.facts.shapes[node][dim] - amounts[place + 1]
        amounts[place : place + 2] = [int((indices < amounts[place]).sum()), int((indices >= end).sum())]
        node.update_arg(1, amounts)


def conv(cut: Cut, node: fx.Node) -> None:
    """As many groups as inputs or outputs are left for, a group's own share being what the weight says."""
    given = arguments(node)
    weight = given["weight"]
    spatial = len(cut.facts.shapes[weight]) - 2
    transposed = "transpose" in str(node.target)
    channels = cut.shape(node if transposed else given["input"])[-spatial - 1]
    held = cut.parameters.by_name.get(str(weight.target)) if weight.op == "get_attr" else None
    if held is not None and given["groups"] > 1:
        share = int((~cut.gone[cut.resolved.of(held.dims[1])]).sum())
        set_argument(node, "groups", channels // share)


def group_norm(cut: Cut, node: fx.Node) -> None:
    given = arguments(node)
    before, after = cut.facts.shapes[given["input"]][1], cut.shape(given["input"])[1]
    node.update_arg(1, given["num_groups"] * after // before)


def attention(cut: Cut, node: fx.Node) -> None:
    """The scores keep the scale that the whole width of a head gave them."""
    given = arguments(node)
    width = cut.facts.shapes[given["query"]][-1]
    if given["scale"] is None and cut.shape(given["query"])[-1] < width:
        set_argument(node, "scale", 1 / math.sqrt(width))


def squeeze(cut: Cut, node: fx.Node) -> None:
    """A dim that was not 1 stays, even if it is 1 now."""
    given = arguments(node)
    shape = cut.facts.shapes[given["self"]]
    dims = given.get("dim", list(range(len(shape))))
    dims = [dim % len(shape) for dim in (dims if isinstance(dims, (list, tuple)) else [dims])]
    node.target = aten.squeeze.dims
    node.args, node.kwargs = (given["self"], [dim for dim in dims if shape[dim] == 1]), {}


def flip(cut: Cut, node: fx.Node) -> None:
    given = arguments(node)
    ndim = len(cut.facts.shapes[node])
    dims = [dim % ndim for dim in given["dims"]]
    kept = cut.kept(given["self"])
    if kept is not None and kept[0] in dims:
        others = [dim for dim in dims if dim != kept[0]]
        moved = torch.arange(cut.facts.shapes[node][kept[0]]).flip(0)
        gather(cut, node, given["self"], kept[0], moved, (others,) if others else None)


def roll(cut: Cut, node: fx.Node) -> None:
    given = arguments(node)
    ndim = len(cut.facts.shapes[node])
    dims = [dim % ndim for dim in given["dims"]] or [0]  # without dims: of one dim, or refused
    shifts = dict(zip(dims, given["shifts"], strict=True))
    kept = cut.kept(given["self"])
    if kept is not None and kept[0] in shifts:
        moved = torch.arange(cut.facts.shapes[node][kept[0]]).roll(cut.facts.value(shifts.pop(kept[0])))
        rest = (list(shifts.values()), list(shifts)) if shifts else None
        gather(cut, node, given["self"], kept[0], moved, rest)


def index(cut: Cut, node: fx.Node) -> None:
    given = arguments(node)
    kept = cut.kept(given["self"])
    if kept is not None and kept[0] < len(given["indices"]) and given["indices"][kept[0]] is not None:
        size = cut.facts.shapes[given["self"]][kept[0]]
        gather(cut, node, given["self"], kept[0], cut.facts.values[given["indices"][kept[0]]] % size)


def index_select(cut: Cut, node: fx.Node) -> None:
    given = arguments(node)
    kept, dim, _ = cut_along(cut, given["self"], given["dim"])
    if kept is not None:
        gather(cut, node, given["self"], dim, cut.facts.values[given["index"]])


def repeat_interleave(cut: Cut, node: fx.Node) -> None:
    given = arguments(node)
    if given["dim"] is not None and cut_along(cut, given["self"], given["dim"])[0] is not None:
        source, dim = given["self"], int(given["dim"]) % len(cut.facts.shapes[node])
        positions = torch.arange(cut.facts.shapes[source][dim]).repeat_interleave(given["repeats"])
        gather(cut, node, source, dim, positions)


def constant(cut: Cut, node: fx.Node) -> None:
    sizes = cut.resized(node, arguments(node)["size"], cut.shape(node))
    set_argument(node, "size", sizes)


def metadata(cut: Cut, node: fx.Node) -> None:
    """An assertion about a tensor: its dtype still holds, its sizes no longer."""
    for name in ("size", "stride"):
        set_argument(node, name, None)


def cut_along(cut: Cut, source: fx.Node, dim: Any) -> tuple[Tensor | None, int, int]:
    """The kept indices of `source` along `dim` if it loses some there, `dim` counted from the front, its old size."""
    shape = cut.facts.shapes[source]
    dim = int(dim) % len(shape)
    kept = cut.kept(source)
    return (kept[1] if kept is not None and kept[0] == dim else None), dim, shape[dim]


def gather(
    cut: Cut, node: fx.Node, source: fx.Node, dim: int, positions: Tensor, rest: tuple[Any, ...] | None = None
) -> None:
    """Read what is left of `positions` of `source`: index_select, then the node itself on its other dims.

    positions: of every result along `dim`, where in `source` it comes from.
    """
    found = cut.kept(source)
    assert found is not None
    rank = torch.full((cut.facts.shapes[source][dim],), -1)
    rank[found[1]] = torch.arange(len(found[1]))
    left = rank[positions]
    name = unused(cut.graph, f"_kept_{node.name}")
    cut.graph.register_buffer(name, left[left >= 0])
    with cut.graph.graph.inserting_before(node):
        held = cut.graph.graph.get_attr(name)
        chosen = cut.graph.graph.call_function(aten.index_select.default, (source, dim, held))
    if rest is None:
        node.replace_all_uses_with(chosen)
        cut.stands_for(chosen, node)
    else:
        node.args, node.kwargs = (chosen, *rest), {}


def set_argument(node: fx.Node, name: str, value: Any) -> None:
    """An argument by the name in the schema, wherever it stands."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    if names.index(name) < len(node.args):
        node.update_arg(names.index(name), value)
    else:
        node.update_kwarg(name, value)


REWRITES: dict[Any, Callable[[Cut, fx.Node], None]] = {
    **dict.fromkeys(packets("view reshape _unsafe_view expand broadcast_to"), view),
    **dict.fromkeys(packets("chunk split split_with_sizes unsafe_chunk unsafe_split tensor_split"), split),
    **dict.fromkeys(packets("pad constant_pad_nd"), pad),
    **dict.fromkeys(packets("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"), conv),
    **dict.fromkeys(packets("squeeze"), squeeze),
    aten.scaled_dot_product_attention: attention,
    aten.unflatten: unflatten,
    aten.slice: slice_,
    aten.narrow: narrow,
    aten.select: select,
    aten.group_norm: group_norm,
    aten.flip: flip,
    aten.roll: roll,
    aten.repeat_interleave: repeat_interleave,
    **dict.fromkeys(CONSTANTS, constant),
    aten.index: index,
    aten.index_select: index_select,
    aten._assert_tensor_metadata: metadata,
}
