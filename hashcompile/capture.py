"""nn.Module -> a verified graph of aten operators, by torch.export, with a symbolic batch."""

from __future__ import annotations

import copy
import sysconfig
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from hashcompile.core.errors import CaptureError, ConfigError, InputError, WeightError
from hashcompile.core.graph import CompressedGraph, as_compressed, check, remove_dead

Inputs = tuple[Any, ...] | dict[str, Any]

BATCH = "batch"


@dataclass(frozen=True)
class Signature:
    """What the graph takes: one entry a tensor input, in the order of the graph's placeholders."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int | str, ...], ...]  # a string is a symbolic size; equal strings are equal sizes
    dtypes: tuple[torch.dtype, ...]
    keywords: bool  # the model takes its inputs as a dict

    @property
    def batch(self) -> str | None:
        """The symbol of dim 0, where all inputs share one."""
        first = {shape[0] if shape else None for shape in self.shapes}
        symbol = first.pop() if len(first) == 1 else None
        return symbol if isinstance(symbol, str) else None

    def check(self, inputs: Sequence[Any]) -> None:
        """Raise InputError naming the first input that does not fit."""
        if len(inputs) != len(self.names):
            raise InputError(
                f"the model takes {len(self.names)} inputs ({', '.join(self.names)}), got {len(inputs)}"
            )
        sizes: dict[str, tuple[int, str]] = {}
        for name, wanted, dtype, value in zip(self.names, self.shapes, self.dtypes, inputs, strict=True):
            if not isinstance(value, Tensor):
                raise InputError(
                    f"input {name!r} is a {type(value).__name__}, wanted a tensor of shape {show(wanted)}"
                )
            if value.dtype != dtype:
                raise InputError(
                    f"input {name!r} is {value.dtype}, wanted {dtype}: convert it with .to({dtype})"
                )
            got = tuple(value.shape)
            fits = len(got) == len(wanted) and all(
                isinstance(w, str) or g == w for g, w in zip(got, wanted, strict=True)
            )
            if not fits:
                raise InputError(f"input {name!r} has shape {show(got)}, wanted {show(wanted)}")
            for size, symbol in zip(got, wanted, strict=True):
                if isinstance(symbol, str) and symbol.isidentifier():
                    first, owner = sizes.setdefault(symbol, (size, name))
                    if first != size:
                        raise InputError(
                            f"{symbol} is {first} in input {owner!r} but {size} in input {name!r}"
                        )


@dataclass(frozen=True)
class Captured:
    graph: CompressedGraph
    signature: Signature
    example: tuple[Any, ...]  # the inputs it was captured with, flat


def show(shape: Iterable[int | str]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def capture(
    model: nn.Module, example_inputs: Inputs, *, dynamic_batch: bool = True, dynamic_shapes: Any = None
) -> Captured:
    """Capture `model` in evaluation mode. The model itself is not changed and shares nothing with the result.

    Raises CaptureError (with the user's source line and what to do), WeightError, ConfigError.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    check_weights(model)
    if isinstance(example_inputs, Tensor):
        example_inputs = (example_inputs,)
    if not isinstance(example_inputs, (tuple, list, dict)) or not len(example_inputs):
        raise ConfigError(
            "example_inputs must be a non-empty tuple of tensors, or a dict of keyword tensors, "
            f"got {type(example_inputs).__name__}"
        )
    example_inputs = example_inputs if isinstance(example_inputs, dict) else tuple(example_inputs)
    shapes = (
        dynamic_shapes
        if dynamic_shapes is not None
        else batch_shapes(example_inputs)
        if dynamic_batch
        else None
    )
    args, kwargs = split(widen(example_inputs, shapes))
    try:
        model = copy.deepcopy(model).eval()
        with torch.no_grad():
            program = torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        batched = dynamic_batch and dynamic_shapes is None
        raise CaptureError(explain(error, batched, fixed_size(model, args, kwargs, shapes))) from error
    batched = dynamic_batch and dynamic_shapes is None
    takes = signature(program, isinstance(example_inputs, dict), batched)
    graph = as_compressed(program.module(check_guards=False))
    remove_dead(graph)
    check(graph)
    return Captured(graph, takes, tuple(pytree.tree_leaves((args, kwargs))))


def signature(program: torch.export.ExportedProgram, keywords: bool, batch: bool) -> Signature:
    wanted = set(program.graph_signature.user_inputs)
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in wanted]
    names, shapes, dtypes = [], [], []
    for node in nodes:
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            raise CaptureError(
                f"input {node.name!r} is a {type(value).__name__}: only tensors can be inputs; "
                "bind other arguments in a wrapper module's forward"
            )
        shape = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
        if batch and shape and isinstance(shape[0], str):
            shape = (BATCH, *shape[1:])
        names.append(node.name)
        shapes.append(shape)
        dtypes.append(value.dtype)
    return Signature(tuple(names), tuple(shapes), tuple(dtypes), keywords)


def check_weights(model: nn.Module) -> None:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_meta:
            raise WeightError(
                f"{name} is on the meta device and has no values: load the weights before compiling"
            )
        if tensor.device.type != "cpu":
            raise WeightError(f"{name} is on {tensor.device}: call model.cpu() before compiling")
        # a buffer may hold infinities on purpose, such as an attention mask
        bad = int((~torch.isfinite(tensor)).sum()) if isinstance(tensor, nn.Parameter) else 0
        if bad:
            raise WeightError(
                f"{name} holds {bad} NaN or infinite values of {tensor.numel()}: nothing was compiled"
            )


def batch_shapes(example: Inputs) -> Any:
    """Dim 0 of every tensor symbolic: one shared symbol if all agree, else one each."""
    leaves = [leaf for leaf in pytree.tree_leaves(example) if isinstance(leaf, Tensor) and leaf.ndim]
    shared = len({leaf.shape[0] for leaf in leaves}) == 1
    dim: Any = torch.export.Dim(BATCH) if shared else torch.export.Dim.AUTO
    return pytree.tree_map(lambda leaf: {0: dim} if isinstance(leaf, Tensor) and leaf.ndim else None, example)


def widen(example: Inputs, shapes: Any) -> Inputs:
    """Repeat dynamic dims of extent 1 to 2: torch.export would take a 1 for a constant."""
    if shapes is None:
        return example
    flat, spec = pytree.tree_flatten(example)
    described = flat_shapes(example, shapes)
    if len(described) != len(flat):
        raise ConfigError(f"dynamic_shapes describes {len(described)} inputs, example_inputs has {len(flat)}")
    wide = []
    for leaf, dims in zip(flat, described, strict=True):
        entries = dims.items() if isinstance(dims, Mapping) else enumerate(dims or ())
        for dim, symbol in entries:
            if (
                isinstance(leaf, Tensor)
                and symbol is not None
                and not isinstance(symbol, int)
                and leaf.shape[dim] == 1
            ):
                leaf = leaf.repeat_interleave(2, dim)
        wide.append(leaf)
    return pytree.tree_unflatten(wide, spec)


def flat_shapes(example: Any, shapes: Any) -> list[Any]:
    """dynamic_shapes flattened along the structure of the inputs: one {dim: symbol} (or None) a leaf."""
    if isinstance(example, Tensor) or shapes is None:
        return [shapes] * len(pytree.tree_leaves(example))
    if isinstance(example, Mapping):
        unknown = set(shapes) - set(example) if isinstance(shapes, Mapping) else set()
        if unknown:
            raise ConfigError(f"dynamic_shapes names {sorted(unknown)}, inputs are {sorted(example)}")
        parts = shapes.values() if not isinstance(shapes, Mapping) else [shapes.get(key) for key in example]
        return [
            entry
            for child, part in zip(example.values(), parts, strict=True)
            for entry in flat_shapes(child, part)
        ]
    if isinstance(example, (tuple, list)):
        # a dict names the parameters of forward, in the order of the positional inputs
        parts = shapes.values() if isinstance(shapes, Mapping) else shapes
        if len(parts) != len(example):
            raise ConfigError(
                f"dynamic_shapes describes {len(parts)} inputs, example_inputs has {len(example)}"
            )
        return [
            entry for child, part in zip(example, parts, strict=True) for entry in flat_shapes(child, part)
        ]
    return [None]


def split(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(args, kwargs) of a call."""
    return ((), dict(inputs)) if isinstance(inputs, dict) else (tuple(inputs), {})


def fixed_size(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: Any) -> str:
    """The user's line that breaks where every dynamic size is one larger; empty if none does."""
    if shapes is None:
        return ""
    flat, spec = pytree.tree_flatten((args, kwargs))
    larger = []
    for leaf, dims in zip(flat, flat_shapes(args or kwargs, shapes), strict=True):
        for dim, symbol in dims.items() if isinstance(dims, Mapping) else enumerate(dims or ()):
            if isinstance(leaf, Tensor) and symbol is not None and not isinstance(symbol, int):
                leaf = torch.cat([leaf, leaf.narrow(dim, 0, 1)], dim)
        larger.append(leaf)
    args, kwargs = pytree.tree_unflatten(larger, spec)
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    except Exception as error:
        return user_line(error)
    return ""


def explain(error: Exception, batch: bool, fixed: str) -> str:
    """One message for whatever torch.export raised: the user's line, what came, what to do."""
    line = user_line(error) or fixed
    text = str(error).strip()
    reason = text.splitlines()[0] if text else type(error).__name__
    if batch and ("specialized" in text or "Constraints violated" in text):
        advice = (
            "the model fixes its batch size; remove the literal batch size from forward, "
            "or compile with dynamic_batch=False"
        )
    elif "data-dependent" in text or "unbacked" in text:
        advice = "control flow depends on tensor values: use torch.where, torch.cond, or move the branch out of forward"
    elif isinstance(error, TypeError) and "argument" in text:
        advice = "example_inputs must fit the model's forward, by position in a tuple or by name in a dict"
    else:
        advice = (
            "the model must run on example_inputs, and torch.export.export(..., strict=False) must trace it"
        )
    where = f" at {line}" if line else ""
    return f"could not capture the model{where}\n  {type(error).__name__}: {reason}\n  what to do: {advice}"


def user_line(error: BaseException) -> str:
    """The innermost frame of a traceback that is neither torch's nor ours."""
    libraries = (
        str(Path(torch.__file__).parent),
        str(Path(__file__).parent),
        sysconfig.get_path("stdlib") + "/",
    )
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((*libraries, "<")) and "contextlib" not in frame.filename
    ]
    return f"{frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""
