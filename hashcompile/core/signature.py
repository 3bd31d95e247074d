"""What a compiled model takes, and how a call's arguments become the graph's inputs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from hashcompile.core.errors import InputError

Inputs = tuple[Any, ...] | dict[str, Any]  # as a user gives them: by position, or by name
Batch = tuple[Any, ...]  # flat: one tensor a placeholder of the graph, in their order


@dataclass(frozen=True)
class Sizes:
    """The sizes that a symbolic dim may have: `least`, and from there in steps up to `most`, if there is an end."""

    least: int = 1
    most: int | None = None
    step: int = 1

    def at_most(self, size: int) -> int:
        """The largest one up to `size`; the least one, where none is so small."""
        size = size if self.most is None else min(size, self.most)
        return max(self.least, size - (size - self.least) % self.step)

    def after(self, size: int) -> int | None:
        """The next larger one."""
        larger = size + self.step
        return larger if self.most is None or larger <= self.most else None


@dataclass(frozen=True)
class Signature:
    """The inputs of a captured model."""

    names: tuple[str, ...]  # one a placeholder
    shapes: tuple[tuple[int | str, ...], ...]  # a string is a symbolic size; equal strings are equal sizes
    dtypes: tuple[torch.dtype, ...]
    arguments: tuple[str, ...]  # of forward, those that were captured, in the graph's order
    structures: tuple[str, ...]  # of each of them: pytree specs, a tensor or a nest of tensors
    parameters: tuple[str, ...]  # of forward, all of them, in its own order: what a position means
    keywords: bool  # captured by name
    batch_sizes: Sizes = Sizes()

    @property
    def batch(self) -> str | None:
        """The symbol of dim 0, where all inputs share one and no other dim hangs on it."""
        first = {shape[0] if shape else None for shape in self.shapes}
        symbol = first.pop() if len(first) == 1 else None
        if not isinstance(symbol, str):
            return None
        words = set(re.findall(r"[A-Za-z_]\w*", symbol))
        others = (size for shape in self.shapes for size in shape[1:] if isinstance(size, str))
        return None if any(words & set(re.findall(r"[A-Za-z_]\w*", size)) for size in others) else symbol

    def first(self, batch: Batch, count: int) -> Batch:
        """The first samples of a batch, about `count`; the batch itself where it cannot be cut."""
        if self.batch is None:
            return batch
        count = self.batch_sizes.at_most(count)
        return tuple(value[:count] for value in batch)

    def sized(self, batch: Batch, count: int | None) -> Batch:
        """A batch of `count` samples, repeated where there are fewer; None: as few as the model takes.

        Raises InputError.
        """
        if self.batch is None:
            fixed = batch[0].shape[0] if batch and batch[0].ndim else 1
            if count not in (None, fixed):
                raise InputError(f"a batch of {count}: the batch of the model is fixed at {fixed}")
            return batch
        if count is None:
            count = self.batch_sizes.least
        if count < 1 or self.batch_sizes.at_most(count) != count:
            raise InputError(
                f"a batch of {count}: the nearest that the model takes is {self.batch_sizes.at_most(count)}"
            )
        return tuple(value[torch.arange(count) % len(value)] for value in batch)

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by name, in the graph's order. Raises InputError."""
        given = dict(zip(self.parameters, args, strict=False))
        if len(args) > len(self.parameters) or len(args) + len(kwargs) != len(self.arguments):
            raise InputError(f"{self.takes}, got {len(args) + len(kwargs)}")
        for name, value in kwargs.items():
            if name in given:
                raise InputError(f"input {name!r} is given twice: by position and by name")
            given[name] = value
        for name in given:
            if name not in self.arguments:
                raise InputError(f"{self.takes}; {name!r} is none of them")
        return {name: given[name] for name in self.arguments}

    def flatten(self, bound: Mapping[str, Any]) -> Batch:
        """Bound arguments as checked tensors. Raises InputError naming the first input that does not fit."""
        flat: list[Any] = []
        for (name, value), structure in zip(bound.items(), self.structures, strict=True):
            wanted = pytree.treespec_loads(structure)
            leaves, got = pytree.tree_flatten(value)
            if wanted.num_leaves == 1 and wanted.is_leaf():
                leaves = [value]
            elif got != wanted:
                raise InputError(f"input {name!r} has another structure: {got}, wanted {wanted}")
            flat += leaves
        self.check(flat)
        return tuple(flat)

    def read(self, inputs: Inputs | Tensor) -> Batch:
        """Inputs as a user gives them, checked. Raises InputError."""
        if isinstance(inputs, Mapping):
            return self.flatten(self.bind((), inputs))
        return self.flatten(self.bind((inputs,) if isinstance(inputs, Tensor) else tuple(inputs), {}))

    @property
    def takes(self) -> str:
        count = len(self.arguments)
        return f"the model takes {count} input{'s' * (count != 1)} ({', '.join(self.arguments)})"

    def check(self, inputs: Sequence[Any]) -> None:
        """Raise InputError naming the first flat input that does not fit."""
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

    def describe(self) -> dict[str, Any]:
        """The signature as JSON values."""
        return {
            "names": self.names,
            "shapes": self.shapes,
            "dtypes": [str(dtype).removeprefix("torch.") for dtype in self.dtypes],
            "arguments": self.arguments,
            "structures": self.structures,
            "parameters": self.parameters,
            "keywords": self.keywords,
            "batch_sizes": asdict(self.batch_sizes),
        }

    @classmethod
    def restore(cls, description: Mapping[str, Any]) -> Signature:
        """Inverse of `describe`."""
        return cls(
            names=tuple(description["names"]),
            shapes=tuple(tuple(shape) for shape in description["shapes"]),
            dtypes=tuple(getattr(torch, dtype) for dtype in description["dtypes"]),
            arguments=tuple(description["arguments"]),
            structures=tuple(description["structures"]),
            parameters=tuple(description["parameters"]),
            keywords=description["keywords"],
            batch_sizes=Sizes(**description.get("batch_sizes", {})),
        )


def show(shape: Iterable[int | str]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def parameters_of(model: nn.Module, positions: int) -> tuple[str, ...]:
    """The names of forward's parameters, in order; `*args` counts for as many as `positions` needs."""
    names: list[str] = []
    for name, parameter in inspect.signature(model.forward).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{name}_{i}" for i in range(positions - len(names))]
        elif parameter.kind is not parameter.VAR_KEYWORD:
            names.append(name)
    return tuple(names)
