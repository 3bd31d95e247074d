"""Compressed graph -> one library that TVM's small runtime loads, with our kernels and all weights inside.

TVM compiles what is left of the graph. Every node of ours becomes a call of one packed function, `hc_node(number,
activations..., outputs...)`, which lies in the same library, beside the node's attributes and constants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from tvm import relax
from tvm.ir import IRModule
from tvm.relax.frontend.torch import from_exported_program
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from hashcompile.core.console import quiet
from hashcompile.core.errors import ExportError
from hashcompile.core.graph import CompressedGraph, source_line
from hashcompile.core.method import Compute
from hashcompile.core.onnx_op import DOMAIN, OVERLOAD, Attribute
from hashcompile.core.rounding import Range
from hashcompile.core.signature import Batch, Signature
from hashcompile.lower.program import fused
from hashcompile.lower.tvm_nodes import TvmNode

FUNCTION = "hc_node"  # of runtime/tvm/call.cc
OURS = ("_symbolic.default", "_symbolic_multi_out.default")


@dataclass(frozen=True)
class Lowered:
    """TVM's module, and the nodes that it calls by number."""

    module: IRModule
    nodes: Sequence[TvmNode]


def lower(
    graph: CompressedGraph,
    signature: Signature,
    example: Batch,
    compute: Compute,
    ranges: Mapping[str, Range],
) -> Lowered:
    """Lower `graph`; `ranges` are those of activations, by node. Raises ExportError for what TVM cannot import."""
    with torch.no_grad(), quiet():
        made = fused(graph, signature, example, compute, ranges, bodies=False)
        program = made.program.run_decompositions()
    known = {*OURS, *ExportedProgramImporter().convert_map}
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    unknown = [node for node in calls if getattr(node.target, "__name__", "") not in known]
    if unknown:
        raise ExportError("TVM cannot import " + "; ".join(dict.fromkeys(map(located, unknown))))
    converter = Converter(program)
    try:
        module = from_exported_program(
            program,
            custom_convert_map={**dict.fromkeys(OURS, converter), "embedding.default": embedding},
            run_ep_decomposition=False,
        )
    except Exception as error:
        raise ExportError(f"TVM could not import the compressed graph: {error}") from error
    return Lowered(module, converter.nodes)


def located(node: fx.Node) -> str:
    line = source_line(node)
    return f"{node.target} (node {node.name})" + (f" from {line}" if line else "")


class Converter:
    """TVM's importer calls it for each node of ours."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        held: dict[str, Tensor] = {**program.state_dict, **program.constants}
        self.constants = {
            spec.arg.name: held[spec.target]
            for spec in program.graph_signature.input_specs
            if spec.target is not None and spec.target in held
        }
        self.nodes: list[TvmNode] = []

    def __call__(self, node: fx.Node, importer: Any) -> Any:
        inputs: list[int | Tensor | None] = []
        activations: list[Any] = []
        given: Any = node.args[0]
        for each in given:
            if each is None:
                inputs.append(None)
            elif each.name in self.constants:
                inputs.append(self.constants[each.name])
            else:
                inputs.append(len(activations))
                activations.append(importer.env[each])
        operator = str(node.args[1]).removeprefix(f"{DOMAIN}::")
        self.nodes.append(TvmNode(operator, node.name, attributes(node), inputs))
        several = "shapes" in node.kwargs
        shapes: Any = node.kwargs["shapes"] if several else [node.kwargs["shape"]]
        types = [
            relax.TensorType([importer.env.get(size, size) for size in shape], "float32") for shape in shapes
        ]
        arguments = relax.Tuple([relax.prim_value(len(self.nodes) - 1), *activations])
        made = importer.block_builder.emit(
            relax.call_dps_packed(FUNCTION, arguments, out_ty=types if len(types) > 1 else types[0])
        )
        return [made] if several and len(types) == 1 else made


def embedding(node: fx.Node, importer: Any) -> Any:
    """Rows of a dense table: NaN for an id that has none, where TVM by itself would read what lies there."""
    table, ids = importer.env[node.args[0]], importer.env[node.args[1]]
    emit = importer.block_builder.emit
    rows = emit(relax.op.take(table, emit(relax.op.reshape(ids, [-1])), axis=0, mode="nan"))
    return emit(relax.op.reshape(rows, [*ids.ty.shape.values, table.ty.shape.values[-1]]))


def attributes(node: fx.Node) -> dict[str, Attribute]:
    """Those that a kernel reads, from the flat form in which the exporter holds them."""
    flat: dict[str, Any] = dict(node.kwargs)
    pools = {"i": flat["attr_ints"], "f": flat["attr_floats"], "s": flat["attr_strs"]}
    found: dict[str, Attribute] = {}
    for name, kind, (begin, end) in zip(flat["attr_keys"], flat["attr_types"], flat["attr_pos"], strict=True):
        values = tuple(pools[kind[0]][begin:end])
        if name != OVERLOAD:
            found[name] = values if len(kind) > 1 else values[0]
    return found
