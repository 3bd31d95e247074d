"""Artifact == compressed graph, or a typed error that names the first node that differs.

The artifact runs in stock ONNX Runtime (function bodies, fp32) and with our library (our kernels). Every output is
judged by itself: floats by their relative error, ||got - wanted|| / ||wanted||, the worst over all inputs; whole
numbers and booleans by the share of their elements that differ, over all inputs together.

- fp32 may differ by `EXACT`: another order of the same sums.
- a layer of which our kernel computes some outputs only is compared where it does, and whatever follows it, with what
  the graph makes of those (`hashcompile.partial`).
- int8 and bf16 arithmetic have a tolerance for each output, and it is derived: the compressed graph is run once more in
  PyTorch with activations rounded as the kernels round them (`hashcompile.rounded`). The artifact may be off by at most
  `MARGIN` times the error predicted so, plus `EXACT`. Of whole numbers one element more may differ, since one that
  the rounding nearly turned over is predicted to stay. A prediction that would let anything pass is an error itself.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

import hashcompile_runtime as hcrt
from hashcompile.core.encoded import Candidates
from hashcompile.core.errors import VerificationError
from hashcompile.core.graph import CompressedGraph
from hashcompile.core.naming import source_line
from hashcompile.core.rounding import ROUNDINGS
from hashcompile.core.signature import Batch, Signature
from hashcompile.core.sweep import sweep
from hashcompile.partial import Masks, check_candidates, computed, expose, record

# What an artifact computed for nodes of the graph, in the order of its own.
Values = Sequence[tuple[str, Tensor]]
OpenSession = Callable[[Path], onnxruntime.InferenceSession]

EXACT = 1e-4  # fp32: sums of thousands of terms in another order, through tens of layers
MARGIN = 2.0
OUTPUT = "output"  # the last node of a graph
TVM_HERE = "tvm, compiled for this machine"  # in the place of a library that it cannot run


@dataclass(frozen=True)
class Check:
    """One comparison of an artifact with the compressed graph, of the output that came closest to its tolerance."""

    runtime: str  # "stock", "hashcompile", "tvm", TVM_HERE
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
    partial: Mapping[str, Candidates] = field(default_factory=dict)  # layers that our kernels compute in part


@dataclass(frozen=True)
class Runtime:
    """A way to run the file, and what it must come close to."""

    name: str
    open: OpenSession
    rounded: CompressedGraph | None  # the graph with activations as this runtime rounds them; None: in fp32
    partial: bool = False  # layers that can be computed in part are


def verify(
    subject: Subject, batches: Sequence[Batch], rounded: CompressedGraph | None = None
) -> tuple[Check, ...]:
    """Run the file on `batches` at several batch sizes. Raises VerificationError.

    rounded: the graph with its activations rounded as our kernels do; None where they compute in fp32.
    """
    inputs = [variant for batch in batches for variant in batch_sizes(batch, subject.signature)]
    wanted = outputs_of(subject.graph, inputs)
    runtimes = (
        Runtime("stock", stock_session, None),
        Runtime("hashcompile", hcrt.session, rounded, partial=bool(subject.partial)),
    )
    return tuple(compare(subject, runtime, inputs, wanted) for runtime in runtimes)


def compare(
    subject: Subject, runtime: Runtime, inputs: Sequence[Batch], wanted: Sequence[Sequence[Tensor]]
) -> Check:
    """All inputs through one session; `wanted[output][input]`. Raises VerificationError."""
    tolerances = tolerances_of(runtime.rounded, inputs, wanted)
    try:
        session = runtime.open(subject.path)
    except Exception as failure:
        raise VerificationError(
            f"{subject.path.name} does not load in {runtime.name} ONNX Runtime: {failure}"
        ) from failure
    try:
        got = transposed([run(session, subject.signature, batch) for batch in inputs])
    except Exception as failure:  # its message names the node
        raise VerificationError(
            f"{subject.path.name} does not run in {runtime.name} ONNX Runtime: {failure}"
        ) from failure
    masks = masks_of(subject, runtime, session, inputs)
    if runtime.partial:
        wanted = outputs_where(subject.graph, inputs, masks)
    where = f"{subject.path.name} in {runtime.name} ONNX Runtime"
    return judged(
        where,
        runtime.name,
        Outcome(inputs, wanted, got, tolerances, producers(subject.graph)),
        lambda worst: first_difference(
            subject.graph,
            runtime.rounded,
            inputs[worst],
            masks[worst],
            values_inside(subject, runtime, inputs[worst]),
        ),
    )


def verify_library(
    name: str,
    run: Callable[[Batch], list[Tensor]],
    inside: Callable[[Sequence[Batch]], list[Values]],
    graph: CompressedGraph,
    signature: Signature,
    batches: Sequence[Batch],
    rounded: CompressedGraph | None = None,
    partial: Mapping[str, Candidates] | None = None,
    runtime: str = "tvm",
) -> tuple[Check, ...]:
    """The same for a library that `run` calls, with our kernels in it. Raises VerificationError.

    inside: what the nodes in between compute, one a batch, where the library itself tells outputs only.
    partial: layers that our kernels compute in part.
    """
    inputs = [variant for batch in batches for variant in batch_sizes(batch, signature)]
    wanted = outputs_of(graph, inputs)
    tolerances = tolerances_of(rounded, inputs, wanted)
    try:
        got = transposed([run(batch) for batch in inputs])
    except Exception as failure:  # our kernels' messages name the node
        raise VerificationError(f"{name} does not run in TVM: {failure}") from failure
    masks: list[Masks] = [{}] * len(inputs)
    if partial:
        try:
            found = inside(inputs)
        except Exception as failure:
            raise VerificationError(f"{name}: what its nodes compute cannot be told: {failure}") from failure
        masks = [{node: value != -torch.inf for node, value in values if node in partial} for values in found]
        for batch, mask in zip(inputs, masks, strict=True):
            check_candidates(rounded or graph, batch, mask, {node: partial[node] for node in mask})
        wanted = outputs_where(graph, inputs, masks)

    def explain(worst: int) -> str:
        batch = inputs[worst]
        return first_difference(graph, rounded, batch, masks[worst], *inside([batch]))

    return (judged(name, runtime, Outcome(inputs, wanted, got, tolerances, producers(graph)), explain),)


@dataclass(frozen=True)
class Outcome:
    """[output][input], but for the inputs; tolerances, and the nodes that make them, are one an output."""

    inputs: Sequence[Batch]
    wanted: Sequence[Sequence[Tensor]]
    got: Sequence[Sequence[Tensor]]
    tolerances: Sequence[float]
    producers: Sequence[str]


def judged(where: str, runtime: str, outcome: Outcome, explain: Callable[[int], str] | None = None) -> Check:
    """`explain` tells where the run of one input, by its place, went astray. Raises VerificationError."""
    closest = (0.0, EXACT)
    for values, reference, tolerance, producer in zip(
        outcome.got, outcome.wanted, outcome.tolerances, outcome.producers, strict=True
    ):
        error = distance(values, reference)
        if not error <= tolerance:
            by_input = [distance([a], [b]) for a, b in zip(values, reference, strict=True)]
            worst = by_input.index(max(by_input))
            raise VerificationError(
                f"{where} differs from the compressed graph: "
                f"{told_error(values, reference)}, tolerance {tolerance:.3g}, in the output of {producer}"
                + (f"; {told(explain, worst)}" if explain else "")
            )
        closest = max(closest, (error, tolerance), key=lambda pair: pair[0] / (pair[1] or 1.0))
    return Check(runtime, *closest, len(outcome.inputs))


def told(explain: Callable[[int], str], worst: int) -> str:
    """The error that is being raised stands, also where nothing can be said about it."""
    try:
        return explain(worst)
    except Exception as failure:
        return f"the node that differs cannot be told: {failure}"


def masks_of(
    subject: Subject, runtime: Runtime, session: onnxruntime.InferenceSession, inputs: Sequence[Batch]
) -> list[Masks]:
    """What was computed of the layers that are computed in part, for each input. Raises VerificationError."""
    if not runtime.partial:
        return [{}] * len(inputs)
    values = {node: value for value, node in subject.origin.items() if node in subject.partial}
    feeds = [feeds_of(session, subject.signature, batch) for batch in inputs]
    found = computed(runtime.open, subject.path, values, feeds)
    graph = runtime.rounded or subject.graph
    for batch, masks in zip(inputs, found, strict=True):
        check_candidates(graph, batch, masks, {name: subject.partial[name] for name in values})
    return list(found)


def tolerances_of(
    graph: CompressedGraph | None, inputs: Sequence[Batch], wanted: Sequence[Sequence[Tensor]]
) -> list[float]:
    """How far each output may be off; `graph` has its activations rounded, None where nothing is. Raises
    VerificationError where the rounding itself leaves nothing of an output."""
    if graph is None:
        return [EXACT] * len(wanted)
    rounded = outputs_of(graph, inputs)
    reached = rounded_outputs(graph)
    found = [tolerance_of(*each) for each in zip(rounded, wanted, reached, strict=True)]
    for position, tolerance in enumerate(found):
        if not tolerance < 1:  # zeros are off by 1
            raise VerificationError(
                f"rounded activations leave nothing of output {position}: the rounding alone brings "
                f"{measure(wanted[position])} {distance(rounded[position], wanted[position]):.3g}; "
                'compile with compute="float"'
            )
    return found


def tolerance_of(rounded: Sequence[Tensor], wanted: Sequence[Tensor], reached: bool) -> float:
    """Of one output, all inputs; `reached`: it hangs on rounded activations."""
    predicted = EXACT + MARGIN * distance(rounded, wanted)
    total = sum(value.numel() for value in wanted)
    if not reached or not total or any(value.is_floating_point() for value in wanted):
        return predicted
    return min(predicted + 1 / total, 1 - 1 / total)


def rounded_outputs(graph: CompressedGraph) -> list[bool]:
    """For every output of a graph, whether it hangs on a rounded activation."""
    reached: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if node.target in ROUNDINGS or not reached.isdisjoint(node.all_input_nodes):
            reached.add(node)
    return [leaf in reached for leaf in output_leaves(graph)]


def output_leaves(graph: CompressedGraph) -> list[Any]:
    """The node of every output of a graph, or what it is where no node makes it; None is no output."""
    return [leaf for leaf in pytree.tree_leaves(graph.graph.output_node().args) if leaf is not None]


def outputs_of(graph: CompressedGraph, inputs: Sequence[Batch]) -> list[list[Tensor]]:
    """[output][input]"""
    return transposed([leaves(outputs) for outputs in sweep(graph, inputs)])


def outputs_where(
    graph: CompressedGraph, inputs: Sequence[Batch], masks: Sequence[Masks]
) -> list[list[Tensor]]:
    """The same, where some outputs of layers are not computed."""
    pairs = zip(inputs, masks, strict=True)
    return transposed([leaves(record(graph, batch, mask)[OUTPUT]) for batch, mask in pairs])


def transposed(rows: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    return [list(column) for column in zip(*rows, strict=True)]


def batch_sizes(batch: Batch, signature: Signature) -> Iterator[Batch]:
    """The batch as it is, and where its size is symbolic, the smallest and the next larger one."""
    yield batch
    if signature.batch and (size := batch[0].shape[0]):
        yield signature.first(batch, 1)
        larger = signature.batch_sizes.after(size)
        if larger is not None:
            yield tuple(torch.cat([value, value[: larger - size]]) for value in batch)


def leaves(outputs: Any) -> list[Tensor]:
    """Outputs as tensors; a size is an output too."""
    return [torch.as_tensor(leaf) for leaf in pytree.tree_leaves(outputs) if leaf is not None]


def stock_session(path: Path | str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, signature: Signature, batch: Batch) -> list[Tensor]:
    return [torch.from_numpy(np.asarray(y)) for y in session.run(None, feeds_of(session, signature, batch))]


def feeds_of(
    session: onnxruntime.InferenceSession, signature: Signature, batch: Batch
) -> dict[str, np.ndarray[Any, Any]]:
    """What the file still reads of the inputs."""
    used = {entry.name for entry in session.get_inputs()}
    named = zip(signature.names, batch, strict=True)
    return {name: value.numpy() for name, value in named if name in used}


def measure(wanted: Sequence[Tensor]) -> str:
    """What `distance` is, in words."""
    floats = any(value.is_floating_point() for value in wanted)
    return "relative error" if floats else "share of elements that differ"


def told_error(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> str:
    """How far one output is off, in words: that it is of another kind or shape, or by how much."""
    for a, b in zip(got, wanted, strict=True):
        if a.shape != b.shape or a.is_floating_point() != b.is_floating_point():
            return f"{kind_of(a)}, wanted {kind_of(b)}"
    return f"{measure(wanted)} {distance(got, wanted):.3g}"


def kind_of(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"


def producers(graph: CompressedGraph) -> list[str]:
    """Of every output of a graph, the node that makes it, with the user's line."""
    return [
        f"{leaf.name}{told_line(leaf)}" if isinstance(leaf, fx.Node) else str(leaf)
        for leaf in output_leaves(graph)
    ]


def told_line(node: fx.Node) -> str:
    line = source_line(node)
    return f", from {line}" if line else ""


def distance(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """How far one output is off over all inputs; infinite, never NaN, where shapes or non-finite places differ."""
    for a, b in zip(got, wanted, strict=True):
        if a.shape != b.shape or a.is_floating_point() != b.is_floating_point():
            return math.inf
    if any(b.is_floating_point() for b in wanted):
        return max(map(relative_error, got, wanted))
    differing = sum(int((a != b).sum()) for a, b in zip(got, wanted, strict=True))
    return differing / max(1, sum(b.numel() for b in wanted))


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """||got - wanted|| / ||wanted|| over finite elements; of a zero output, the absolute one."""
    a, b = got.detach().double(), wanted.detach().double()
    finite = b.isfinite()
    if not torch.equal(a.isfinite(), finite) or not torch.equal(
        a[~finite].nan_to_num(nan=0.0), b[~finite].nan_to_num(nan=0.0)
    ):
        return math.inf
    norm = b[finite].norm()
    error = float((a[finite] - b[finite]).norm() / (norm if norm > 0 else 1.0))
    return error if math.isfinite(error) else math.inf


def values_inside(subject: Subject, runtime: Runtime, batch: Batch) -> Values:
    """Of an ONNX file, run with every known intermediate value as an output."""
    model = onnx.load(str(subject.path))
    produced = [name for node in model.graph.node for name in node.output if name in subject.origin]
    with tempfile.TemporaryDirectory() as folder:
        session = runtime.open(expose(subject.path, produced, folder))
        feeds = {name: value.numpy() for name, value in zip(subject.signature.names, batch, strict=True)}
        found = session.run(produced, feeds)
    return [
        (subject.origin[name], torch.from_numpy(np.asarray(value)))
        for name, value in zip(produced, found, strict=True)
    ]


def first_difference(
    graph: CompressedGraph, rounded: CompressedGraph | None, batch: Batch, masks: Masks, got: Values
) -> str:
    """Name the first node whose value differs; `rounded` has activations as the artifact rounds them, None: in fp32."""
    wanted = record(graph, batch, masks)
    predicted = record(rounded, batch, masks) if rounded is not None else wanted
    nodes = {node.name: node for node in graph.graph.nodes}
    for name, value in got:
        reference = wanted.get(name)
        if isinstance(reference, Tensor):
            tolerance = tolerance_of(
                [predicted.get(name, reference)], [reference], reached=rounded is not None
            )
            error = distance([value], [reference])
            if not error <= tolerance:
                node, off = nodes[name], told_error([value], [reference])
                return f"the first node that differs is {node.name} ({node.target}), {off}{told_line(node)}"
    return "no single node differs by more than the tolerance: the error builds up along the graph"
