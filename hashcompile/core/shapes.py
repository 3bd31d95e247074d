"""Which sizes of a model's inputs are symbolic, in torch.export's own form."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from hashcompile.core.errors import ConfigError
from hashcompile.core.signature import Inputs

BATCH = "batch"


def batch_shapes(example: Inputs) -> Any:
    """Dim 0 of every tensor symbolic: one shared symbol if all agree, else one each.

    Where they do not agree, an extent of 1 is taken for a broadcast and stays 1.
    """
    leaves = [leaf for leaf in pytree.tree_leaves(example) if isinstance(leaf, Tensor) and leaf.ndim]
    shared = len({leaf.shape[0] for leaf in leaves}) == 1
    dim: Any = torch.export.Dim(BATCH) if shared else torch.export.Dim.AUTO

    def dims(leaf: Any) -> Any:
        return {0: dim} if isinstance(leaf, Tensor) and leaf.ndim and (shared or leaf.shape[0] != 1) else None

    return pytree.tree_map(dims, example)


def grouped(shapes: Any, model: nn.Module, example: Inputs) -> Any:
    """`shapes`, an entry for each input, as torch.export takes them: all that `*args` holds is one entry."""
    forward = inspect.signature(model.forward).parameters.values()
    count = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in forward)
    loose = isinstance(shapes, (tuple, list)) and any(p.kind is p.VAR_POSITIONAL for p in forward)
    return (*shapes[:count], tuple(shapes[count:])) if loose and len(example) > count else shapes


def widen(example: Inputs, shapes: Any) -> Inputs:
    """Repeat symbolic dims of extent 1 to 2: torch.export would take a 1 for a constant."""
    return resize(example, shapes, lambda x, dim: x.repeat_interleave(2, dim) if x.shape[dim] == 1 else x)


def one_larger(example: Inputs, shapes: Any) -> Inputs:
    """Every symbolic dim larger by one."""
    return resize(example, shapes, lambda x, dim: torch.cat([x, x.narrow(dim, 0, 1)], dim))


def resize(example: Inputs, shapes: Any, change: Callable[[Tensor, int], Tensor]) -> Inputs:
    """`change` applied to every symbolic dim of every input. Raises ConfigError where shapes do not fit."""
    flat, spec = pytree.tree_flatten(example)
    resized = []
    for leaf, dims in zip(flat, flat_shapes(example, shapes), strict=True):
        for dim in symbolic(dims):
            if not isinstance(leaf, Tensor) or not -leaf.ndim <= dim < leaf.ndim:
                raise ConfigError(f"dynamic_shapes names dim {dim} of an input of shape {tuple(leaf.shape)}")
            leaf = change(leaf, dim)
        resized.append(leaf)
    return pytree.tree_unflatten(resized, spec)


def symbolic(dims: Any) -> Iterator[int]:
    """The symbolic dims of one input's entry: {dim: symbol}, a sequence of symbols, or None."""
    entries = dims.items() if isinstance(dims, Mapping) else enumerate(dims or ())
    yield from (dim for dim, symbol in entries if symbol is not None and not isinstance(symbol, int))


def flat_shapes(example: Any, shapes: Any) -> list[Any]:
    """Shapes along the structure of the inputs: one entry a leaf. Raises ConfigError where they do not fit."""
    if isinstance(example, Tensor) or shapes is None:
        return [shapes] * len(pytree.tree_leaves(example))
    if not isinstance(example, (Mapping, tuple, list)):
        return [None]
    if not isinstance(shapes, (Mapping, tuple, list)):
        raise ConfigError(f"dynamic_shapes holds {shapes!r} where the inputs hold a {type(example).__name__}")
    if isinstance(example, Mapping):
        if not isinstance(shapes, Mapping) or set(shapes) - set(example):
            raise ConfigError(f"dynamic_shapes must be a dict over {sorted(example)}, got {shapes!r}")
        parts = [(child, shapes.get(key)) for key, child in example.items()]
    else:
        # a dict names the parameters of forward, in the order of the positional inputs
        entries = list(shapes.values() if isinstance(shapes, Mapping) else shapes)
        if len(entries) != len(example):
            raise ConfigError(
                f"dynamic_shapes describes {len(entries)} inputs, example_inputs has {len(example)}"
            )
        parts = list(zip(example, entries, strict=True))
    return [entry for child, part in parts for entry in flat_shapes(child, part)]
