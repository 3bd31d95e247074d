"""What a TVM library takes, as JSON in a section of its own: TVM's `main` knows positions only, and tells no shapes.

`{"inputs": [[name, dtype, [size or symbol, ...]], ...], "kind": "llvm"}`: the inputs in the order of main's arguments,
and the kind of device that they lie on, as TVM names it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from hashcompile.core.signature import Signature

SECTION = ".hashcompile"
KINDS = ("llvm", "cuda")


@dataclass(frozen=True)
class Input:
    """An input as a file declares it; a size that is a string is symbolic, and may have no name."""

    name: str
    shape: tuple[int | str, ...]
    dtype: np.dtype[Any] | None  # None: not a tensor of numbers


@dataclass(frozen=True)
class Interface:
    inputs: tuple[Input, ...]
    kind: str


def encode(signature: Signature, kind: str) -> bytes:
    declared = zip(signature.names, signature.dtypes, signature.shapes, strict=True)
    inputs = [[name, str(dtype).removeprefix("torch."), shape] for name, dtype, shape in declared]
    return json.dumps({"inputs": inputs, "kind": kind}).encode()


def decode(content: bytes) -> Interface:
    """Raises ValueError for what `encode` did not make."""
    try:
        told = json.loads(content)
        declared = [Input(str(name), tuple(shape), np.dtype(dtype)) for name, dtype, shape in told["inputs"]]
        kind = told.get("kind", "llvm")  # files from before there were others do not tell
    except (TypeError, KeyError) as error:
        raise ValueError(f"{error}") from error
    if any(not isinstance(size, int | str) for each in declared for size in each.shape):
        raise ValueError("a size is neither a number nor a symbol")
    if kind not in KINDS:
        raise ValueError(f"devices of kind {kind!r} are not known")
    return Interface(tuple(declared), kind)
