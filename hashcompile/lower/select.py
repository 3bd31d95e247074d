"""Which operator computes on every encoded weight: decided here, for lowering, for the report and for verification."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from torch import fx

from hashcompile.core.encoded import EncodedWeight, encoded_weights
from hashcompile.core.graph import CompressedGraph, flat_copy
from hashcompile.core.layers import CONSUMERS, consumes
from hashcompile.core.method import Compute, compute_of
from hashcompile.core.onnx_op import OnnxOp
from hashcompile.lower.chain import find_chains
from hashcompile.lower.feed_forward import OPERATOR as FEED_FORWARD
from hashcompile.lower.feed_forward import FeedForward, find_feed_forwards
from hashcompile.lower.steps import Chain
from hashcompile.passes import method_of_code
from hashcompile.passes.cleanup.activations import name_activations
from hashcompile.passes.cleanup.contractions import name_contractions
from hashcompile.passes.cleanup.fold_batch_norm import fold_batch_norm
from hashcompile.passes.cleanup.functional import functional
from hashcompile.passes.cleanup.inactive import drop_inactive
from hashcompile.passes.cleanup.masked_scores import add_masks


@dataclass(frozen=True)
class Selection:
    """A flat copy of the compressed graph, and what its nodes will be. The copy is the caller's to rewrite."""

    graph: CompressedGraph
    codes: dict[str, EncodedWeight]  # by parameter
    readers: dict[str, tuple[fx.Node, ...]]  # of each parameter, in execution order
    ops: dict[fx.Node, OnnxOp]  # the readers that compute on the codes; the others get the dense weight
    chains: tuple[Chain, ...]
    feed_forwards: tuple[FeedForward, ...]
    compute: Compute

    @cached_property
    def chained(self) -> frozenset[fx.Node]:
        """The convolutions that are steps of a chain."""
        return frozenset(step.nodes[0] for chain in self.chains for step in chain.convolutions)

    @cached_property
    def steps(self) -> frozenset[fx.Node]:
        """All that chains compute."""
        return frozenset(node for chain in self.chains for step in chain.steps for node in step.nodes)

    @cached_property
    def paired(self) -> frozenset[fx.Node]:
        """The layers of feed-forwards."""
        return frozenset(layer for pair in self.feed_forwards for layer in (pair.up, pair.down))

    @property
    def alone(self) -> dict[fx.Node, OnnxOp]:
        """The operators outside of all chains."""
        return {node: op for node, op in self.ops.items() if node not in self.chained}

    def kernel(self, parameter: str) -> str | None:
        """The operators that compute on the codes of a parameter; None if one of its readers wants it dense."""
        names: dict[str, None] = {}
        for node in self.readers[parameter]:
            op = self.ops.get(node)
            if op is None:
                return None
            op = replace(op, operator=FEED_FORWARD) if node in self.paired else op
            names["Chain" if node in self.chained else label(op)] = None
        return ", ".join(names)


def select(graph: CompressedGraph, compute: Compute) -> Selection:
    """What lowering makes of `graph`, which stays as it is."""
    flat = flat_copy(graph)
    fold_batch_norm(flat)
    drop_inactive(flat)
    functional(flat)
    name_activations(flat)
    name_contractions(flat)
    add_masks(flat)
    codes = encoded_weights(flat)
    readers: dict[str, tuple[fx.Node, ...]] = dict.fromkeys(codes, ())
    ops: dict[fx.Node, OnnxOp] = {}
    for weight in flat.graph.nodes:
        if weight.op != "call_module" or weight.target not in codes:
            continue
        for reader in weight.users:
            readers[weight.target] += (reader,)
            if (op := operator(weight, reader, codes[weight.target], compute)) is not None:
                ops[reader] = op
    if compute != "int8":
        return Selection(flat, codes, readers, ops, (), (), compute)
    chains = find_chains(flat.graph, ops)
    steps = {node for chain in chains for step in chain.steps for node in step.nodes}
    return Selection(flat, codes, readers, ops, chains, find_feed_forwards(ops, taken=steps), compute)


def operator(weight: fx.Node, reader: fx.Node, code: EncodedWeight, compute: Compute) -> OnnxOp | None:
    """The node that decodes and consumes at once; None where the reader needs the dense weight."""
    if not consumes(reader, weight):
        return None
    kind, position = CONSUMERS[reader.target]
    bias = reader.args[2] if len(reader.args) > 2 and position == 1 else None
    if bias is not None and not (isinstance(bias, fx.Node) and bias.op == "get_attr"):
        return None  # kernels want a constant bias
    return method_of_code(code).onnx_fused(code, reader, kind, compute)


def label(op: OnnxOp) -> str:
    return f"{op.operator} {op.overload} {compute_of(op) or ''}".strip()
