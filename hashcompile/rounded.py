"""The compressed graph with everything rounded as the kernels round it: what int8 or bf16 arithmetic costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import Tensor, fx

from hashcompile.core.graph import STANDS_FOR, CompressedGraph
from hashcompile.core.layers import CONSUMERS, unused
from hashcompile.core.method import Compute, compute_of
from hashcompile.core.rounding import (
    MEASURED,
    Range,
    round_affine,
    round_attention,
    round_bf16,
    round_images,
    round_rows,
)
from hashcompile.lower.attention import find_attentions
from hashcompile.lower.select import Selection, select

ROUND = {"CodebookLinear": round_rows, "CodebookConv": round_images}  # of HC_INT8


def rounded(graph: CompressedGraph, compute: Compute, ranges: Mapping[str, Range]) -> CompressedGraph:
    """A flat copy of `graph` that rounds the tensors of chains, what attentions multiply, and what the operators
    outside of chains do.
    """
    selection = select(graph, compute)
    flat = selection.graph
    for node, op in selection.alone.items():
        match compute_of(op):
            case "int8":
                round_input(flat, node, ROUND[op.operator])
                round_weight(selection, node, "int8")
            case "bf16":
                round_input(flat, node, round_bf16)
                round_weight(selection, node, "bf16")
    for node in selection.chained:
        round_weight(selection, node, "int8")
    round_chains(selection, ranges)
    if compute == "int8":
        round_attentions(flat)
    flat.recompile()
    return flat


def round_input(flat: CompressedGraph, layer: fx.Node, rounding: Callable[[Tensor], Tensor]) -> None:
    with flat.graph.inserting_before(layer):
        layer.update_arg(0, flat.graph.call_function(rounding, (layer.args[0],)))


def round_weight(selection: Selection, layer: fx.Node, compute: Literal["int8", "bf16"]) -> None:
    """The weight of one layer; other readers of it may have another arithmetic."""
    flat = selection.graph
    weight: Any = layer.args[CONSUMERS[layer.target][1]]
    name = unused(flat, f"{layer.name}_rounded")
    code = selection.codes[weight.target]
    flat.add_submodule(name, code.in_int8() if compute == "int8" else code.in_bf16())
    with flat.graph.inserting_before(layer):
        layer.replace_input_with(weight, flat.graph.call_module(name))


def round_chains(selection: Selection, ranges: Mapping[str, Range]) -> None:
    """Insert the roundings of every chain: an input is rounded for the chain alone, its own tensors for all readers."""
    for chain in selection.chains:
        within = {node for step in chain.steps for node in step.nodes}
        sampled = {step.output for step in chain.steps if step.keeps_levels}
        for tensor in chain.tensors:
            if tensor not in chain.read or tensor in sampled:
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
