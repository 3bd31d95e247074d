"""What a file holds of one encoded weight: tensors by name, and numbers that are entropy-coded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hashcompile.core import entropy
from hashcompile.core.errors import ArtifactError


@dataclass(frozen=True)
class Coded:
    """A stream of `core.entropy`, and what it claims to hold; nothing is decoded before somebody says what he wants."""

    stream: Tensor  # (bytes,) uint8
    count: int
    size: int  # of the alphabet


def claimed(name: str, stream: Tensor, claim: Mapping[str, Any]) -> Coded:
    """Of a file. Raises ArtifactError, or what a dict raises, where the claim is none."""
    count, size = claim["count"], claim["size"]
    if any(isinstance(each, bool) or not isinstance(each, int) or each < 0 for each in (count, size)):
        raise ArtifactError(f"{name} is {count!r} numbers below {size!r}")
    return Coded(stream, count, size)


def entropy_coded(
    packed: Mapping[str, Tensor], symbols: Mapping[str, entropy.Symbols]
) -> tuple[dict[str, Tensor], dict[str, dict[str, int]]]:
    """The tensors of a weight with streams in the place of those that are larger, and for each stream the claim that
    `claimed` reads, beside the bytes that it saves one to store.
    """
    held, claims = dict(packed), {}
    for name, (values, size, instead) in symbols.items():
        stream = entropy.encode(values.numpy(), size)
        before = sum(held[each].nbytes for each in instead)
        if len(stream) < before:
            held = {each: tensor for each, tensor in held.items() if each not in instead}
            held[name] = torch.frombuffer(bytearray(stream), dtype=torch.uint8)
            claims[name] = {"count": len(values), "size": size, "packed": before}
    return held, claims


@dataclass(frozen=True)
class Storage:
    """What `EncodedWeight.restore` reads. A name is in one of both."""

    tensors: Mapping[str, Tensor]
    coded: Mapping[str, Coded] = field(default_factory=dict)

    def tensor(self, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        """Raises ArtifactError where it is not there, or not of this kind."""
        if name not in self.tensors:
            raise ArtifactError(f"a weight without its {name}")
        got = self.tensors[name]
        if got.dtype != dtype or tuple(got.shape) != shape:
            raise ArtifactError(f"{name} is {got.dtype} {tuple(got.shape)}, wanted {dtype} {shape}")
        return got

    def numbers(self, name: str, count: int, size: int) -> Tensor:
        """(count,) uint8 of an alphabet of `size`, decoded. Raises ArtifactError before, where the file has others."""
        held = self.coded[name]
        if (held.count, held.size) != (count, size):
            raise ArtifactError(
                f"{name} is {held.count} numbers below {held.size}, wanted {count} below {size}"
            )
        if held.stream.dtype != torch.uint8 or held.stream.ndim != 1:
            raise ArtifactError(f"{name} is {held.stream.dtype} {tuple(held.stream.shape)}, wanted bytes")
        return torch.from_numpy(entropy.decode(held.stream.numpy(), count, size))
