"""nn.Module -> a verified graph of aten operators, by torch.export, with a symbolic batch."""

from __future__ import annotations

import copy
import inspect
import itertools
import math
import sysconfig
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from hashcompile.core.console import quiet
from hashcompile.core.encoded import CODES, encoded_weights, taken_out
from hashcompile.core.errors import CaptureError, ConfigError, WeightError
from hashcompile.core.graph import (
    CompressedGraph,
    as_compressed,
    check,
    impure,
    remove_dead,
    tensors,
)
from hashcompile.core.layers import arguments
from hashcompile.core.naming import source_line
from hashcompile.core.reshaping import PARTS, RESHAPING
from hashcompile.core.shapes import batch_shapes, flat_shapes, grouped, one_larger, symbolic, widen
from hashcompile.core.signature import Inputs, Signature, Sizes, parameters_of


@dataclass(frozen=True)
class Captured:
    graph: CompressedGraph
    signature: Signature
    example: tuple[Any, ...]  # the inputs it was captured with, flat


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
    keywords = isinstance(example_inputs, dict)
    example: Inputs = dict(example_inputs) if keywords else tuple(example_inputs)
    for name, value in named(example, model):
        if any(not isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value)):
            raise CaptureError(
                f"input {name!r} is {value!r}: only tensors can be inputs; bind other arguments in a wrapper module"
            )
    if keywords and (loose := unnamed(model, example)):
        raise CaptureError(
            f"input {loose!r} is one of forward's **kwargs, which torch.export does not take with dynamic sizes\n"
            "  what to do: wrap the model in a module whose forward names its inputs"
        )
    batched = dynamic_batch and dynamic_shapes is None
    shapes = batch_shapes(example) if batched else dynamic_shapes
    example = widen(pytree.tree_map(lambda leaf: leaf.detach().clone(), example), shapes)
    args, kwargs = ((), example) if isinstance(example, dict) else (example, {})
    with quiet():
        history = model.meta if isinstance(model, CompressedGraph) else {}
        model = own(model).eval()
        codes = taken_out(model)
    if encoded := encoded_weights(model):
        raise ConfigError(
            f"the model is compiled already, and the weights of {', '.join(encoded)} are codes: compile the model "
            "that it was made from, with all methods in one list: [hc.PruneChannels(amount=0.3), hc.Codebook(bits=4)]"
        )
    try:
        with torch.no_grad(), quiet():
            given = grouped(shapes, model, example)
            program = torch.export.export(model, args, kwargs, dynamic_shapes=given, strict=False)
    except Exception as error:
        line = user_line(error) or fixed_size(model, example, shapes)
        raise CaptureError(explain(error, line, batched)) from error
    takes = signature(program, parameters_of(model, len(args)), keywords, flat_shapes(example, shapes))
    with quiet():
        graph = as_compressed(program.module(check_guards=False))
    graph.meta["tied"] = tied(model)
    graph.meta[CODES] = codes
    graph.meta[PARTS] = dict(history.get(PARTS, {}))
    if history:  # the graph of a compiled model: what was done to it before
        graph.meta |= {RESHAPING: history.get(RESHAPING), "tied": history.get("tied", {}) | tied(model)}
    remove_dead(graph)
    graph.meta["unread"] = unread(model, graph)
    refuse_state(graph)
    refuse_chance(graph)
    check(graph)
    return Captured(graph, takes, takes.read(example))


def own(model: nn.Module) -> nn.Module:
    """A copy. Tensors that a hook computes anew for each run, such as the weights of torch.nn.utils.weight_norm, are
    copied as they are: deepcopy knows parameters only."""
    computed = (
        value
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    )
    return copy.deepcopy(model, {id(value): value.detach().clone() for value in computed})


RETURN_IT = "a file has no state; take the value as an input, and return the new one"
ADVICE = {
    torch.ops.aten.embedding_renorm_.default: (
        "set max_norm of the embedding to None; torch.renorm(weight, norm_type, 0, max_norm) scales all rows for good"
    )
}


def refuse_state(graph: fx.GraphModule) -> None:
    """Raise CaptureError where a graph writes to a buffer or parameter: the file that it becomes has no state."""
    for node in graph.graph.nodes:
        if not impure(node):
            continue
        given = arguments(node)
        for argument in node.target._schema.arguments:
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            written = given[argument.name]
            while isinstance(written, fx.Node) and aliases(written):
                written = written.args[0]
            if isinstance(written, fx.Node) and written.op == "get_attr":
                line = source_line(node)
                raise CaptureError(
                    f"the model changes {written.target!r} while it runs{f', at {line}' if line else ''}\n"
                    f"  what to do: {ADVICE.get(node.target, RETURN_IT)}"
                )


def aliases(node: fx.Node) -> bool:
    """Is its value a view of its first argument, or that argument itself?"""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(value.alias_info is not None for value in schema.returns)


def refuse_chance(graph: fx.GraphModule) -> None:
    """Raise CaptureError where a graph draws random numbers: no two runs agree, and no file can be verified."""
    for node in graph.graph.nodes:
        if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
            continue
        given = arguments(node)
        if any(given.get(switch, True) == 0 for switch in ("train", "training", "dropout_p", "p")):
            continue  # dropout that is switched off
        line = source_line(node)
        raise CaptureError(
            f"the model draws random numbers in {node.target}{f', at {line}' if line else ''}\n"
            "  what to do: pass self.training to functional.dropout; take other random values as an input"
        )


def tied(model: nn.Module) -> dict[str, list[str]]:
    """For every path of a parameter or buffer, the other paths of the same one."""
    paths: dict[int, list[str]] = {}
    for name, tensor in tensors(model):
        paths.setdefault(id(tensor), []).append(name)
    return {name: [n for n in same if n != name] for same in paths.values() if len(same) > 1 for name in same}


def unread(model: nn.Module, graph: fx.GraphModule) -> dict[str, tuple[int, ...]]:
    """The shapes of the model's parameters and buffers that the graph has under no name, since nothing reads them."""
    others = tied(model)
    held = {other for name, _ in tensors(graph) for other in (name, *others.get(name, ()))}
    return {name: tuple(tensor.shape) for name, tensor in tensors(model) if name not in held}


def named(example: Inputs, model: nn.Module) -> Iterable[tuple[str, Any]]:
    """The example inputs with their names."""
    if isinstance(example, dict):
        return example.items()
    names = parameters_of(model, len(example))
    return itertools.zip_longest(names[: len(example)], example, fillvalue="one too many")


def unnamed(model: nn.Module, example: Inputs) -> str | None:
    """The first input by name that only `**kwargs` of forward takes."""
    forward = inspect.signature(model.forward).parameters
    caught = any(parameter.kind is parameter.VAR_KEYWORD for parameter in forward.values())
    return next((str(name) for name in example if caught and name not in forward), None)


def signature(
    program: torch.export.ExportedProgram,
    parameters: tuple[str, ...],
    keywords: bool,
    dynamic: Sequence[Any],
) -> Signature:
    """What the program takes. A size bears the name of the user's Dim, where one symbol has one name."""
    wanted = set(program.graph_signature.user_inputs)
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in wanted]
    values = [node.meta["val"] for node in nodes]
    shapes = [tuple(size if isinstance(size, int) else str(size) for size in value.shape) for value in values]
    names: dict[int | str, set[str]] = {}
    for shape, dims in zip(shapes, dynamic, strict=True):
        for dim in symbolic(dims):
            names.setdefault(shape[dim], set()).add(getattr(dims[dim], "__name__", ""))
    called = {
        symbol: min(given) for symbol, given in names.items() if len(given) == 1 and isinstance(symbol, str)
    }
    called = {
        symbol: name for symbol, name in called.items() if name and list(called.values()).count(name) == 1
    }
    shapes = [
        tuple(called.get(size, size) if isinstance(size, str) else size for size in shape) for shape in shapes
    ]
    spec = program.call_spec.in_spec
    assert spec is not None
    inputs = spec.child(1 if keywords else 0)
    return Signature(
        names=tuple(node.name for node in nodes),
        shapes=tuple(shapes),
        dtypes=tuple(value.dtype for value in values),
        arguments=tuple(inputs.context) if keywords else parameters[: inputs.num_children],
        structures=tuple(pytree.treespec_dumps(child) for child in inputs.children()),
        parameters=parameters,
        keywords=keywords,
        batch_sizes=batch_sizes(program, values[0], dynamic[0]) if values else Sizes(),
    )


def batch_sizes(program: torch.export.ExportedProgram, value: Tensor, dims: Any) -> Sizes:
    """What dim 0 of an input may be, from the user's own Dim and from what export found out."""
    if not value.ndim or isinstance(value.shape[0], int):
        return Sizes()
    expression = value.shape[0].node.expr
    known = program.range_constraints.get(expression)
    if known is None:
        return Sizes()
    named = dims.get(0) if isinstance(dims, Mapping) else dims[0]
    least, most = known.lower, known.upper
    if least <= 2 and getattr(named, "min", None) != 2:
        least = 1  # export sees no 0 and no 1; most models do
    steps = [int(expression.coeff(symbol)) for symbol in expression.free_symbols]
    return Sizes(int(least), int(most) if most.is_Integer else None, math.gcd(*steps) or 1)


def check_weights(model: nn.Module) -> None:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if torch.nn.parameter.is_lazy(tensor):
            raise WeightError(f"{name} of a lazy module has no values: run the model once before compiling")
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


def fixed_size(model: nn.Module, example: Inputs, shapes: Any) -> str:
    """The user's line that breaks where every symbolic size is one larger; empty if none does."""
    larger = one_larger(example, shapes)
    try:
        with torch.no_grad():
            model(**larger) if isinstance(larger, dict) else model(*larger)
    except Exception as error:
        return user_line(error)
    return ""


def explain(error: Exception, line: str, batch: bool) -> str:
    """One message for whatever torch.export raised: the user's line, what came, what to do."""
    text = str(error).strip()
    reason = text.splitlines()[0] if text else type(error).__name__
    if batch and ("specialized" in text or "Constraints violated" in text):
        advice = (
            "the model fixes its batch size; remove the literal batch size from forward, "
            "or compile with dynamic_batch=False"
        )
    elif "data-dependent" in text or "unbacked" in text:
        advice = "control flow depends on tensor values: use torch.where, torch.cond, or move the branch out of forward"
    elif "dynamic_shapes" in text:
        advice = (
            "dynamic_shapes takes torch.export's form: for each input {dim: torch.export.Dim(name)}, or None"
        )
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
