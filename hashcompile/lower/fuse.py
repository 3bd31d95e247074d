"""Decode + consumer -> one symbolic operator, on a copy of the compressed graph.

Given:  %w = call_module[fc.weight]();  %y = aten.linear(%x, %w, %b)
Result: %y = call_module[fc_op](%x, %codes, %codebook, %scale, %b)     # com.hashcompile::CodebookLinear

The copy takes and returns flat tuples, and is exported again: every size downstream follows from the symbolic one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from hashcompile.core.encoded import EncodedWeight, encoded_weights
from hashcompile.core.graph import CompressedGraph, flat_copy, remove_dead
from hashcompile.core.layers import CONSUMERS, Kind, attribute, consumes, holder_of
from hashcompile.core.method import Compute, Method
from hashcompile.core.onnx_op import DOMAIN, VERSION, OnnxOp
from hashcompile.core.sweep import activation
from hashcompile.passes import method_of_code
from hashcompile.passes.cleanup.fold_batch_norm import fold_batch_norm

OVERLOAD = "overload"  # travels as an attribute: torch.onnx.ops.symbolic has no place for it


class SymbolicOp(nn.Module):
    """A node of ours to the exporter: named, typed and shaped, never executed."""

    def __init__(self, op: OnnxOp, dtype: torch.dtype) -> None:
        super().__init__()
        self.op = op
        self.dtype = dtype

    def forward(self, *inputs: Tensor) -> Tensor:
        attributes = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self.op.attributes.items()
        }
        activations = inputs[:1] if self.op.has_activation else ()
        return torch.onnx.ops.symbolic(
            f"{DOMAIN}::{self.op.operator}",
            inputs,
            {**attributes, OVERLOAD: self.op.overload},
            dtype=self.dtype,
            shape=self.op.out_shape(*activations),
            version=VERSION,
        )


def fuse(graph: CompressedGraph, compute: Compute) -> tuple[fx.GraphModule, list[OnnxOp]]:
    """A flat copy of `graph` with symbolic operators in place of encoded weights, and those operators."""
    graph = flat_copy(graph)
    fold_batch_norm(graph)
    ops: list[OnnxOp] = []
    for name, code in encoded_weights(graph).items():
        method = method_of_code(code)
        holder, leaf = holder_of(graph, name)
        holder.register_module(leaf, nn.Module())  # holds the constants under the weight's own name
        for weight in [
            node for node in graph.graph.nodes if node.op == "call_module" and node.target == name
        ]:
            for consumer in list(weight.users):
                ops.append(fuse_consumer(graph, weight, consumer, code, method, compute))
    remove_dead(graph)
    graph.graph.lint()
    return graph, ops


def fuse_consumer(
    graph: fx.GraphModule,
    weight: fx.Node,
    consumer: fx.Node,
    code: EncodedWeight,
    method: Method,
    compute: Compute,
) -> OnnxOp:
    op = kind = bias = None
    if consumes(consumer, weight):
        kind, position = CONSUMERS[consumer.target]
        bias = consumer.args[2] if len(consumer.args) > 2 and position == 1 else None
        if bias is None or (
            isinstance(bias, fx.Node) and bias.op == "get_attr"
        ):  # kernels want a constant bias
            op = method.onnx_fused(code, consumer, kind, compute)
    fused = op is not None
    op = op or method.onnx_decode(code)
    holder = attribute(graph, str(weight.target))
    with graph.graph.inserting_before(consumer):
        constants = []
        for constant, value in op.constants().items():
            path = f"{weight.target}.{store(holder, constant, value)}"
            constants.append(graph.graph.get_attr(path))
        name = f"{consumer.name}_op"
        graph.add_submodule(name, SymbolicOp(op, torch.float32))
        if not fused:
            dense = graph.graph.call_module(name, tuple(constants))
            consumer.replace_input_with(weight, dense)
            return op
        source: Any = activation(consumer)
        if kind is Kind.EMBEDDING:  # the kernel reads int64 ids
            source = graph.graph.call_function(torch.ops.aten.to.dtype, (source, torch.int64))
        inputs: list[Any] = [source, *constants]
        call = graph.graph.call_module(name, (*inputs, bias) if bias is not None else tuple(inputs))
    call.meta = dict(consumer.meta)
    consumer.replace_all_uses_with(call)
    graph.graph.erase_node(consumer)
    return op


def store(holder: nn.Module, name: str, value: Tensor) -> str:
    """Register a constant, or find the equal one that another consumer of a tied weight already holds."""
    for existing, tensor in holder.named_buffers(recurse=False):
        if existing.rstrip("_") == name and torch.equal(tensor, value):
            return existing
    while hasattr(holder, name):
        name += "_"
    holder.register_buffer(name, value)
    return name
