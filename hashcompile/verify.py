"""Artifact == compressed graph, or a typed error that names the first node that differs.

The artifact runs in stock ONNX Runtime (function bodies, fp32) and with our library (our kernels). The measure is the
relative error of an output, ||got - wanted|| / ||wanted||.

- fp32 may differ by `EXACT`: another order of the same sums.
- int8 arithmetic has its own tolerance, and it is derived: the compressed graph is run once more in PyTorch with the
  activations of every encoded layer rounded as the kernels round them. The artifact may be off by at most
  `INT8_MARGIN` times the error predicted so, plus `EXACT`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

import hashcompile_runtime as hcrt
from hashcompile.core.errors import VerificationError
from hashcompile.core.graph import CompressedGraph, flat_copy, source_line
from hashcompile.core.layers import CONSUMERS, Kind
from hashcompile.core.method import Compute
from hashcompile.core.signature import Batch, Signature
from hashcompile.core.sweep import sweep

OpenSession = Callable[[Path], onnxruntime.InferenceSession]

EXACT = 1e-4  # fp32: sums of thousands of terms in another order, through tens of layers
INT8_MARGIN = 2.0


@dataclass(frozen=True)
class Check:
    """One comparison of an artifact with the compressed graph: the worst over all inputs."""

    runtime: str  # "stock", "hashcompile"
    error: float
    tolerance: float
    runs: int

    def __str__(self) -> str:
        return f"{self.runtime}: relative error {self.error:.2g}, tolerance {self.tolerance:.2g}, {self.runs} runs"


@dataclass(frozen=True)
class Subject:
    """What is verified: the ONNX file, and the graph that it came from."""

    path: Path
    graph: CompressedGraph
    signature: Signature
    origin: Mapping[str, str]  # ONNX value -> node of the graph


def verify(subject: Subject, batches: Sequence[Batch], compute: Compute) -> tuple[Check, ...]:
    """Run the file on `batches` at several batch sizes. Raises VerificationError."""
    inputs = [variant for batch in batches for variant in batch_sizes(batch, subject.signature)]
    wanted = [leaves(outputs) for outputs in sweep(subject.graph, inputs)]
    predicted = 0.0
    if compute == "int8":
        rounded = [leaves(outputs) for outputs in sweep(with_int8_activations(subject.graph), inputs)]
        predicted = max(map(distance, rounded, wanted), default=0.0)
    return (
        compare(subject, "stock", stock_session, inputs, wanted, EXACT),
        compare(subject, "hashcompile", hcrt.session, inputs, wanted, EXACT + INT8_MARGIN * predicted),
    )


def compare(
    subject: Subject,
    runtime: str,
    open_session: OpenSession,
    inputs: Sequence[Batch],
    wanted: Sequence[list[Tensor]],
    tolerance: float,
) -> Check:
    """All inputs through one session. Raises VerificationError."""
    try:
        session = open_session(subject.path)
    except Exception as failure:
        raise VerificationError(
            f"{subject.path.name} does not load in {runtime} ONNX Runtime: {failure}"
        ) from failure
    worst = 0.0
    for batch, reference in zip(inputs, wanted, strict=True):
        error = distance(run(session, subject.signature, batch), reference)
        if not error <= tolerance:
            raise VerificationError(
                f"{subject.path.name} in {runtime} ONNX Runtime differs from the compressed graph: relative error "
                f"{error:.3g}, tolerance {tolerance:.3g}; {first_difference(subject, open_session, batch, tolerance)}"
            )
        worst = max(worst, error)
    return Check(runtime, worst, tolerance, len(inputs))


def batch_sizes(batch: Batch, signature: Signature) -> Iterator[Batch]:
    """The batch as it is, and where its size is symbolic, one sample and one sample more."""
    yield batch
    if signature.batch and batch[0].shape[0]:
        yield tuple(value[:1] for value in batch)
        yield tuple(torch.cat([value, value[:1]]) for value in batch)


def leaves(outputs: Any) -> list[Tensor]:
    """Outputs as tensors; a size is an output too."""
    return [torch.as_tensor(leaf) for leaf in pytree.tree_leaves(outputs) if leaf is not None]


def stock_session(path: Path | str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, signature: Signature, batch: Batch) -> list[Tensor]:
    feeds = {name: value.numpy() for name, value in zip(signature.names, batch, strict=True)}
    used = {entry.name for entry in session.get_inputs()}
    return [
        torch.from_numpy(np.asarray(y))
        for y in session.run(None, {k: v for k, v in feeds.items() if k in used})
    ]


def distance(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The worst relative error over outputs; infinite where shapes or non-finite places differ."""
    worst = 0.0
    for a, b in zip(got, wanted, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if not b.is_floating_point():
            worst = max(worst, 0.0 if torch.equal(a, b.to(a.dtype)) else float("inf"))
            continue
        a, b = a.detach().double(), b.detach().double()
        if not torch.equal(a.isnan(), b.isnan()) or not torch.equal(a[a.isinf()], b[b.isinf()]):
            return float("inf")
        finite = b.isfinite()
        norm = b[finite].norm()
        error = (a[finite] - b[finite]).norm()
        worst = max(worst, float(error / norm) if norm > 0 else float(error))
    return worst


def with_int8_activations(graph: CompressedGraph) -> CompressedGraph:
    """The compressed graph with the inputs of every encoded layer rounded as the int8 kernels round them."""
    rounded = flat_copy(graph)
    for node in list(rounded.graph.nodes):
        if node.op != "call_function" or node.target not in CONSUMERS:
            continue
        kind, position = CONSUMERS[node.target]
        if node.args[position].op == "call_module" and kind in (Kind.LINEAR, Kind.CONV):
            with rounded.graph.inserting_before(node):
                x = rounded.graph.call_function(round_int8, (node.args[0],), {"per_image": kind is Kind.CONV})
            node.update_arg(0, x)
    return rounded


def round_int8(x: Tensor, *, per_image: bool) -> Tensor:
    """x to 255 levels, one symmetric scale a token (last dim) or an image (all dims but the first)."""
    dims = tuple(range(1, x.ndim)) if per_image else (-1,)
    scale = x.abs().amax(dims, keepdim=True) / 127 if x.numel() else x.sum(dims, keepdim=True)
    return torch.where(scale > 0, torch.round(x / scale) * scale, x)


def first_difference(subject: Subject, open_session: OpenSession, batch: Batch, tolerance: float) -> str:
    """Run with every known intermediate value as an output, and name the first one that differs."""
    path, graph, origin = subject.path, subject.graph, subject.origin
    model = onnx.load(str(path))
    produced = [name for node in model.graph.node for name in node.output if name in origin]
    outputs = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in produced if name not in outputs)
    with tempfile.TemporaryDirectory() as folder:
        every = Path(folder) / path.name
        onnx.save(model, str(every), save_as_external_data=model.ByteSize() > 1 << 30)
        session = open_session(every)
        feeds = {name: value.numpy() for name, value in zip(subject.signature.names, batch, strict=True)}
        got = dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))
    wanted: dict[str, Any] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, node: fx.Node) -> Any:
            wanted[node.name] = super().run_node(node)
            return wanted[node.name]

    with torch.no_grad():
        Recorder(graph).run(*batch)
    nodes = {node.name: node for node in graph.graph.nodes}
    for value in produced:
        reference = wanted.get(origin[value])
        if isinstance(reference, Tensor):
            error = distance([torch.from_numpy(np.asarray(got[value]))], [reference])
            if not error <= tolerance:
                node = nodes[origin[value]]
                line = source_line(node)
                return (
                    f"the first node that differs is {node.name} ({node.target}), relative error {error:.3g}"
                    + (f", from {line}" if line else "")
                )
    return "no single node differs by more than the tolerance: the error builds up along the graph"
