"""The layers of a captured graph whose weights can be encoded, found by what consumes each parameter."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, fx, nn

from hashcompile.core.naming import named
from hashcompile.core.reshaping import PARTS
from hashcompile.core.rows import RowView

aten = torch.ops.aten


class Kind(StrEnum):
    LINEAR = "linear"
    CONV = "conv"
    CONV_TRANSPOSE = "conv_transpose"
    EMBEDDING = "embedding"


CONSUMERS: dict[Any, tuple[Kind, int]] = {  # operator -> (kind, position of the weight among its arguments)
    aten.linear.default: (Kind.LINEAR, 1),
    **{
        overload: (Kind.CONV, 1)
        for packet in (aten.conv1d, aten.conv2d, aten.conv3d)
        for overload in (packet.default, packet.padding)
    },
    aten.conv_transpose1d.default: (Kind.CONV_TRANSPOSE, 1),
    aten.conv_transpose2d.input: (Kind.CONV_TRANSPOSE, 1),
    aten.conv_transpose3d.input: (Kind.CONV_TRANSPOSE, 1),
    aten.embedding.default: (Kind.EMBEDDING, 0),
}


def kind_of(node: fx.Node) -> Kind | None:
    """Of a layer; None for any other node."""
    return CONSUMERS[node.target][0] if node.op == "call_function" and node.target in CONSUMERS else None


COPIES = (aten.contiguous.default, aten.clone.default, aten.alias.default, aten.detach.default)


def arguments(node: fx.Node) -> dict[str, Any]:
    """All arguments of an aten node by the names of its schema, defaults filled in."""
    return arguments_of(node.target, node.args, node.kwargs)


def arguments_of(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a call of an aten operator by the names of its schema, defaults filled in."""
    schema = operator._schema.arguments
    values = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
    return values | {argument.name: value for argument, value in zip(schema, args, strict=False)} | {**kwargs}


@dataclass(frozen=True)
class Window:
    """The geometry of a convolution; every tuple has one entry a spatial dimension."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    before: tuple[int, ...]  # zeros added in front of each spatial dimension
    after: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, node: fx.Node, weight_shape: tuple[int, ...]) -> Window:
        return cls.given(arguments(node), weight_shape)

    @classmethod
    def given(cls, given: Mapping[str, Any], weight_shape: tuple[int, ...]) -> Window:
        """From the arguments of a convolution."""
        kernel = weight_shape[2:]

        def per_dim(value: Any) -> tuple[int, ...]:
            entries = tuple(value) if isinstance(value, (list, tuple)) else (value,)
            return entries * len(kernel) if len(entries) == 1 else entries

        dilation = per_dim(given["dilation"])
        padding = given["padding"]
        if isinstance(padding, str):  # "same" puts the odd zero behind, as PyTorch does
            total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
            before = tuple(t // 2 for t in total)
            after = tuple(t - t // 2 for t in total)
        else:
            before = after = per_dim(padding)
        return cls(kernel, per_dim(given["stride"]), before, after, dilation, int(given["groups"]))

    def geometry(self) -> dict[str, int | tuple[int, ...]]:
        """As ONNX spells it."""
        return {
            "kernel_shape": self.kernel,
            "strides": self.stride,
            "pads": (*self.before, *self.after),
            "dilations": self.dilation,
            "group": self.groups,
        }

    def out_size(self, size: Any, dim: int) -> Any:
        """Output extent of spatial dimension `dim`; works on integers and on symbolic sizes."""
        covered = self.dilation[dim] * (self.kernel[dim] - 1)
        return (size + self.before[dim] + self.after[dim] - covered - 1) // self.stride[dim] + 1


SMALLEST = 1024  # numbers in a parameter, from which on it is listed though no layer consumes it: 4 kB


@dataclass(frozen=True)
class Layer:
    """A parameter, and every node that consumes it as a weight.

    Large parameters of two or more dims that no node consumes as a weight are listed as well, without `kinds`: position
    tables, the weights of an LSTM, whatever else a model reads in its own way.
    """

    name: str  # layer name: the module's path ("layer1.0.conv1"), what globs match
    parameter: str  # the parameter's own path ("layer1.0.conv1.weight")
    kinds: tuple[Kind, ...]  # what each consumer is
    view: RowView
    dtype: torch.dtype
    consumers: tuple[str, ...]  # names of the nodes whose weight it is, in execution order
    others: tuple[str, ...]  # nodes that read the parameter in any other way, in the user's words
    # other paths of the same parameter in the user's model, and those of what it is a part of
    tied: tuple[str, ...] = ()
    # a linear layer whose outputs leave the model as they are, or through a choice of the best
    final: bool = False
    # the row of an embedding that stands for no token; of the first consumer that has one
    padding: int | None = None

    @property
    def kind(self) -> Kind | None:
        """Of the first consumer. A tied weight has several consumers: an embedding and an output projection."""
        return self.kinds[0] if self.kinds else None


def layers(module: fx.GraphModule) -> Iterator[Layer]:
    """Every layer of `module` in execution order, those whose weights are encoded already left out."""
    holders: dict[str, list[fx.Node]] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            holders.setdefault(str(node.target), []).append(node)
    order = {node: position for position, node in enumerate(module.graph.nodes)}
    packed: dict[str, tuple[str, ...]] = {}
    for path, parts in module.meta.get(PARTS, {}).items():
        packed |= {part: (*packed.get(part, ()), path) for part in parts}
    found: list[tuple[int, Layer]] = []
    for parameter, nodes in holders.items():
        weight = attribute(module, parameter)
        users = sorted({user for node in nodes for user in node.users}, key=order.__getitem__)
        consumers = [user for user in users if any(consumes(user, node) for node in nodes)]
        listed = isinstance(weight, nn.Parameter) and weight.ndim > 1 and weight.numel() >= SMALLEST
        if not isinstance(weight, Tensor) or not (consumers or (listed and weight.is_floating_point())):
            continue
        kinds = tuple(CONSUMERS[user.target][0] for user in consumers)
        groups = int(arguments(consumers[0])["groups"]) if Kind.CONV_TRANSPOSE in kinds[:1] else 0
        layer = Layer(
            name=parameter.removesuffix(".weight"),
            parameter=parameter,
            kinds=kinds,
            view=RowView(tuple(weight.shape), groups),
            dtype=weight.dtype,
            consumers=tuple(user.name for user in consumers),
            others=tuple(map(named, (user for user in users if user not in consumers))),
            tied=tuple(module.meta.get("tied", {}).get(parameter, ())) + packed.get(parameter, ()),
            final=all(chosen_from(user) for user in consumers if user.target is aten.linear.default)
            and Kind.LINEAR in kinds,
            padding=next(filter(lambda row: row is not None, map(padding_row, consumers)), None),
        )
        found.append((order[(consumers or users)[0]], layer))
    yield from (layer for _, layer in sorted(found, key=lambda entry: entry[0]))


def padding_row(node: fx.Node) -> int | None:
    """The row that an embedding keeps for padding; None for one without, and for any other layer."""
    row = arguments(node)["padding_idx"] if kind_of(node) is Kind.EMBEDDING else -1
    return int(row) if row >= 0 else None


PASSED_ON = {  # what outputs keep their meaning in
    operator.getitem,
    *(
        aten.view.default,
        aten.reshape.default,
        aten._unsafe_view.default,
        aten.flatten.using_ints,
        aten.unflatten.int,
    ),
    *(aten.unsqueeze.default, aten.squeeze.default, aten.squeeze.dim, aten.select.int, aten.slice.Tensor),
    *(aten.contiguous.default, aten.clone.default, aten.alias.default, aten.detach.default),
    *(aten.to.dtype, aten._to_copy.default, aten.dropout.default),
}
CHOICES = {  # on whose results scores far below the best have no influence, along the dim that they name
    aten.softmax.int,
    aten.log_softmax.int,
    aten.max.dim,
    aten.argmax.default,
    aten.topk.default,
}


def chosen_from(layer: fx.Node) -> bool:
    """Do the outputs of a linear layer leave the model as they are, or through a choice among all of a row?"""
    classes, todo, left = layer.meta["val"].shape[-1], [layer], False
    while todo:
        node = todo.pop()
        for user in node.users:
            if user.op == "output":
                left = True
                continue
            given = arguments(user) if user.target in CHOICES else {}
            dim = given.get("dim")
            along = isinstance(dim, int) and node.meta["val"].shape[dim] == classes
            if user.target not in PASSED_ON and not (along and given.get("largest", True)):
                return False
            todo.append(user)
    return left


BAG = "write it as nn.Embedding, and a sum or mean over the rows of each bag"


def unfit(layer: Layer) -> str | None:
    """What makes a layer unfit for any method."""
    bag = f": {BAG}" if any(other.startswith("embedding_bag") for other in layer.others) else ""
    if not layer.consumers:
        return f"it is read by {', '.join(layer.others)}, for which there is no compressed form{bag}"
    if layer.others:
        return f"its weight is also read by {', '.join(layer.others)}, which needs it dense{bag}"
    kinds = set(layer.kinds)
    if len(kinds) > 1 and not kinds <= {Kind.LINEAR, Kind.EMBEDDING}:
        return f"its weight is shared by {' and '.join(sorted(kinds))}"
    if layer.view.numel == 0:
        return "its weight is empty"
    return None


def consumes(node: fx.Node, weight: fx.Node) -> bool:
    """Does `node` use `weight` as its weight, and as nothing else?"""
    if node.op != "call_function" or node.target not in CONSUMERS:
        return False
    position = CONSUMERS[node.target][1]
    uses = [i for i, argument in enumerate(node.args) if argument is weight]
    return uses == [position] and weight not in node.kwargs.values()


def channels_second(node: fx.Node, weight_shape: tuple[int, ...]) -> bool:
    """Does a layer return (B, N, ...), so that a batch norm behind it normalises its output channels? A convolution of
    one image without a batch dim does not, nor a linear layer over a sequence.
    """
    return bool(node.meta["val"].ndim == len(weight_shape))


def channel_dim(x: Tensor, layer: Layer) -> int:
    """The dim of a layer's inputs or outputs along which its channels lie."""
    return x.ndim - 1 if layer.kind is Kind.LINEAR else x.ndim - len(layer.view.shape) + 1


def consumer_kinds(weight: fx.Node) -> Iterator[tuple[fx.Node, Kind | None]]:
    """Every reader of `weight`, and what kind of layer it is; None for a reader that wants the dense weight."""
    for user in weight.users:
        yield user, CONSUMERS[user.target][0] if consumes(user, weight) else None


def attribute(module: torch.nn.Module, path: str) -> Any:
    """The attribute at a dotted path."""
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    return value


def holder_of(module: torch.nn.Module, path: str) -> tuple[torch.nn.Module, str]:
    """The module that holds the attribute at a dotted path, and the attribute's own name."""
    *parents, leaf = path.split(".")
    return (attribute(module, ".".join(parents)) if parents else module), leaf


def unused(module: torch.nn.Module, path: str) -> str:
    """`path`, with underscores behind it where something of the module's hangs there already."""
    holder, leaf = holder_of(module, path)
    while hasattr(holder, leaf):
        leaf, path = f"{leaf}_", f"{path}_"
    return path
