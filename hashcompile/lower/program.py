"""The compressed graph with our operators in it, exported once more: what both ONNX and TVM are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from hashcompile.core.flatten import reexport
from hashcompile.core.graph import CompressedGraph
from hashcompile.core.method import Compute
from hashcompile.core.onnx_op import OnnxOp
from hashcompile.core.rounding import Range
from hashcompile.core.signature import Batch, Signature
from hashcompile.lower.destination import Destination
from hashcompile.lower.fuse import fuse
from hashcompile.lower.select import Selection, select


@dataclass(frozen=True)
class Fused:
    """`program` computes what the graph does; `ops` are the operators of ours in it."""

    program: torch.export.ExportedProgram
    ops: Sequence[OnnxOp]
    selection: Selection


def fused(
    graph: CompressedGraph,
    signature: Signature,
    example: Batch,
    compute: Compute,
    ranges: Mapping[str, Range],
    to: Destination,
) -> Fused:
    """`ranges` are those of activations, by node."""
    selection = select(graph, compute)
    flat, ops = fuse(selection, ranges, to)
    return Fused(reexport(flat, example, signature.shapes), ops, selection)
