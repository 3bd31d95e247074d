"""The compressed graph with activations rounded as the int8 kernels round them: what int8 arithmetic costs."""

from __future__ import annotations

from collections.abc import Mapping

from hashcompile.core.graph import STANDS_FOR, CompressedGraph
from hashcompile.core.method import Compute
from hashcompile.core.rounding import (
    MEASURED,
    Range,
    round_affine,
    round_attention,
    round_images,
    round_rows,
)
from hashcompile.lower.attention import find_attentions
from hashcompile.lower.select import Selection, select

INT8 = 1  # the attribute `compute` of our nodes
ROUND = {"CodebookLinear": round_rows, "CodebookConv": round_images}


def rounded(graph: CompressedGraph, compute: Compute, ranges: Mapping[str, Range]) -> CompressedGraph:
    """A flat copy of `graph` that rounds the tensors of chains, what attentions multiply, and the inputs of other int8
    operators."""
    selection = select(graph, compute)
    flat = selection.graph
    for node, op in selection.alone.items():
        if op.attributes.get("compute") == INT8:
            with flat.graph.inserting_before(node):
                node.update_arg(0, flat.graph.call_function(ROUND[op.operator], (node.args[0],)))
    round_chains(selection, ranges)
    if compute == "int8":
        round_attentions(flat)
    flat.recompile()
    return flat


def round_chains(selection: Selection, ranges: Mapping[str, Range]) -> None:
    """Insert the roundings of every chain: an input is rounded for the chain alone, its own tensors for all readers."""
    for chain in selection.chains:
        within = {node for step in chain.steps for node in step.nodes}
        for tensor in chain.tensors:
            if tensor not in chain.read:
                continue
            scale, zero = ranges.get(tensor.name, MEASURED)
            with selection.graph.graph.inserting_after(tensor):
                value = selection.graph.graph.call_function(round_affine, (tensor, scale, zero))
            own = tensor not in chain.inputs
            value.meta = {STANDS_FOR: tensor.meta.get(STANDS_FOR, tensor.name)} if own else {}
            readers = {*tensor.users} - {value} if own else within
            for reader in readers & {*tensor.users}:
                reader.replace_input_with(tensor, value)


def round_attentions(graph: CompressedGraph) -> None:
    """Put the attention of the int8 kernels in the place of every one."""
    for found in find_attentions(graph.graph):
        with graph.graph.inserting_before(found.root):
            settings = {
                "scale": found.scale,
                "causal": found.causal,
                "safe": found.safe,
                "token_major": found.root.meta["val"].transpose(1, 2).is_contiguous(),
            }
            operands = (found.q, found.k, found.v, found.mask)
            value = graph.graph.call_function(round_attention, operands, settings)
        value.meta = {STANDS_FOR: found.root.meta.get(STANDS_FOR, found.root.name)}
        found.root.replace_all_uses_with(value)
