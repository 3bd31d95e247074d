"""The nodes of ours in one compiled library: what they are and all their constants, as bytes that `runtime/tvm` reads.

The format stands at the head of `runtime/tvm/model.h`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hashcompile.core.errors import ExportError
from hashcompile.core.onnx_op import Attribute

MAGIC = b"HCNODES1"
ALIGNMENT = 64  # of constants: kernels read whole cache lines
ABSENT, CONSTANT = -1, -2
ELEMENTS = {torch.float32: 1, torch.uint8: 2, torch.int64: 7, torch.bool: 9}  # as ONNX numbers them

Input = int | Tensor | None  # an activation, by its place in a call; a constant; absent


@dataclass(frozen=True)
class TvmNode:
    """One node of ours, as the library holds it."""

    operator: str
    name: str  # for messages
    attributes: Mapping[str, Attribute]
    inputs: Sequence[Input]


def encode(nodes: Sequence[TvmNode]) -> bytes:
    """All nodes, and behind them their constants, each of them once. Raises ExportError for a type no kernel reads."""
    constants = {id(each): each for node in nodes for each in node.inputs if isinstance(each, Tensor)}
    size = len(MAGIC) + 4 + sum(len(described(node, dict.fromkeys(constants, 0))) for node in nodes)
    places: dict[int, int] = {}
    for key, constant in constants.items():
        places[key] = size = aligned(size)
        size += constant.nbytes
    head = MAGIC + struct.pack("<I", len(nodes)) + b"".join(described(node, places) for node in nodes)
    out = bytearray(aligned(size))
    out[: len(head)] = head
    for key, constant in constants.items():
        out[places[key] : places[key] + constant.nbytes] = constant.detach().contiguous().numpy().tobytes()
    return bytes(out)


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def described(node: TvmNode, places: Mapping[int, int]) -> bytes:
    parts = [text(node.operator), text(node.name), struct.pack("<I", len(node.attributes))]
    for name, value in node.attributes.items():
        parts += [text(name), attribute(value)]
    parts.append(struct.pack("<I", len(node.inputs)))
    for each in node.inputs:
        if isinstance(each, Tensor):
            parts.append(constant(node, each, places[id(each)]))
        else:
            parts.append(struct.pack("<i", ABSENT if each is None else each))
    return b"".join(parts)


def constant(node: TvmNode, value: Tensor, place: int) -> bytes:
    if value.dtype not in ELEMENTS:
        raise ExportError(f"{node.operator} {node.name!r}: no kernel reads a constant of {value.dtype}")
    shape = tuple(value.shape)
    return struct.pack(f"<iII{len(shape)}qQ", CONSTANT, ELEMENTS[value.dtype], len(shape), *shape, place)


def attribute(value: Attribute) -> bytes:
    if isinstance(value, str):
        return b"s" + text(value)
    values = value if isinstance(value, tuple | list) else (value,)
    kind = "f" if any(isinstance(each, float) for each in values) else "i"
    return kind.encode() + struct.pack(f"<I{len(values)}{'f' if kind == 'f' else 'q'}", len(values), *values)


def text(value: str) -> bytes:
    return struct.pack("<I", len(value.encode())) + value.encode()
