"""Compressed graph -> one library that TVM's small runtime loads, with our kernels and all weights inside.

TVM compiles what is left of the graph. Every node of ours becomes a call of one packed function, `hc_node(number,
activations..., outputs...)`, which lies in the same library, beside the node's attributes and constants.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from tvm import relax
from tvm.ir import IRModule
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from hashcompile.core.console import quiet
from hashcompile.core.errors import ExportError
from hashcompile.core.flatten import origins
from hashcompile.core.graph import CompressedGraph
from hashcompile.core.method import Compute
from hashcompile.core.naming import source_line
from hashcompile.core.onnx_op import DOMAIN, OVERLOAD, Attribute
from hashcompile.core.rounding import Range
from hashcompile.core.signature import Batch, Signature
from hashcompile.lower.chain_op import overload
from hashcompile.lower.channels_last import CHANNELS_SECOND, writes_channels_last
from hashcompile.lower.destination import TVM, TVM_CUDA, Destination
from hashcompile.lower.exponentials import KEEP_ORDER
from hashcompile.lower.program import fused
from hashcompile.lower.steps import Chain
from hashcompile.lower.tvm_decompositions import EARLY, WEAK, decompositions
from hashcompile.lower.tvm_nodes import TvmNode
from hashcompile.lower.tvm_rows import ROWS
from hashcompile.lower.tvm_types import Row

FUNCTION = "hc_node"  # of runtime/tvm/call.cc
REORDERS = (torch.ops.aten.permute.default, torch.ops.aten.view.default, torch.ops.aten.sym_size.int)
# What TVM computes on a GPU in several kernels, with memory between them that its target cuda_host cannot ask for.
NEED_MEMORY = frozenset(
    (
        "argsort.default",
        "cumprod.default",
        "cumsum.default",
        "median.default",
        "median.dim",
        "sort.default",
        "topk.default",
    )
)
OURS = ("_symbolic.default", "_symbolic_multi_out.default")


@dataclass(frozen=True)
class Lowered:
    """TVM's module, and the nodes that it calls by number."""

    module: IRModule
    nodes: Sequence[TvmNode]
    signature: Signature
    # nodes of the compressed graph: `main` returns their values, too, behind its own
    exposed: Sequence[str] = ()
    described: Mapping[str, str] = field(default_factory=dict)  # variable of `main` -> node, for messages


def lower(
    graph: CompressedGraph,
    signature: Signature,
    example: Batch,
    compute: Compute,
    ranges: Mapping[str, Range],
    expose: bool = False,
    to: Destination = TVM,
) -> Lowered:
    """Lower `graph`; `ranges` are those of activations, by node. Raises ExportError for what TVM cannot import.

    expose: return the values of the nodes in between, too.
    to: where it runs, which decides what becomes a node of ours, and whether it may compute as `compute` says.
    """
    with torch.no_grad(), quiet():
        made = fused(graph, signature, example, to.compute(compute), ranges, to)
        program = importable(made.program)
    if to is TVM_CUDA and (nodes := [node for node in program.graph.nodes if name_of(node) in NEED_MEMORY]):
        raise ExportError("TVM cannot compile for CUDA " + "; ".join(dict.fromkeys(map(described, nodes))))
    exposed: list[str] = []
    if expose:
        known = origins(program, graph) | chain_origins(program, made.selection.chains)
        exposed = with_outputs(program, known)
    converter = Converter(program)
    importer = ExportedProgramImporter()
    rows = {name: located(imported(convert)) for name, convert in importer.convert_map.items()}
    rows |= {**dict.fromkeys(OURS, converter), **{name: located(row) for name, row in ROWS.items()}}
    try:
        module = importer.from_exported_program(program, False, False, False, rows)
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(f"TVM could not import the graph: {error}") from error
    values = {var: node for node, var in reversed(importer.env.items()) if isinstance(var, relax.Var)}
    names = {var.name: described(node) for var, node in values.items()}
    return Lowered(module, converter.nodes, signature, exposed, names)


def with_outputs(program: torch.export.ExportedProgram, origin: Mapping[str, str]) -> list[str]:
    """Let the program return all tensors that `origin` knows, images with the channels second; their nodes in the
    compressed graph, in that order.
    """
    output = program.graph.output_node()
    values = [
        node
        for node in program.graph.nodes
        if node.op == "call_function" and node.name in origin and isinstance(node.meta.get("val"), Tensor)
    ]
    returned: Any = output.args[0]
    images = images_of(program)
    seen = (channels_second(value) if value in images else value for value in values)
    output.args = ((*returned, *seen),)
    return [origin[node.name] for node in values]


def images_of(program: torch.export.ExportedProgram) -> set[fx.Node]:
    """Images with channels last: what operators of ours write so, and what is computed of such, but for what is put in
    another order.
    """
    found: set[fx.Node] = set()
    for node in program.graph.nodes:
        if name_of(node) == OURS[0] and operator_of(node) not in KEEP_ORDER:
            made = writes_channels_last(operator_of(node), attributes(node))
        else:
            made = not found.isdisjoint(node.all_input_nodes) and node.target not in REORDERS
        if made and node.op == "call_function":
            found.add(node)
    return found


def channels_second(image: fx.Node) -> fx.Node:
    with image.graph.inserting_after(image):
        permuted = image.graph.call_function(torch.ops.aten.permute.default, (image, list(CHANNELS_SECOND)))
    permuted.meta = {"val": image.meta["val"].permute(CHANNELS_SECOND)}
    return permuted


def chain_origins(program: torch.export.ExportedProgram, chains: Sequence[Chain]) -> dict[str, str]:
    """What leaves a chain, which PyTorch traces back to the call alone: value of the program -> node of the graph."""
    outputs = {overload(i): chain.outputs for i, chain in enumerate(chains)}
    found = {}
    for node in program.graph.nodes:
        call = node.args[0] if node.target is operator.getitem else None
        if isinstance(call, fx.Node) and name_of(call) == OURS[1]:
            of = outputs.get(str(attributes(call).get(OVERLOAD)), ())
            if node.args[1] < len(of) and of[node.args[1]].meta["val"].ndim == node.meta["val"].ndim:
                found[node.name] = of[node.args[1]].name
    return found


def importable(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """In PyTorch's core operators; those of them that TVM's importer lacks in the terms of others, where PyTorch knows
    such terms. Raises ExportError with the nodes that are left.
    """
    known = {None, *OURS, *ExportedProgramImporter().convert_map, *ROWS} - WEAK
    table: dict[Any, Any] = {**torch.export.default_decompositions(), **EARLY}
    program = decomposed(program, table)
    tried: set[Any] = set()
    while unknown := [node for node in program.graph.nodes if name_of(node) not in known]:
        more = decompositions({node.target for node in unknown} - tried)
        if not more:
            raise ExportError("TVM cannot import " + "; ".join(dict.fromkeys(map(described, unknown))))
        tried |= more.keys()
        program = decomposed(program, {**table, **more})
    if rounded := [node for node in program.graph.nodes if in_bfloat16(node)]:
        raise ExportError("TVM rounds otherwise to bfloat16: " + "; ".join(map(described, rounded)))
    output = program.graph.output_node()
    returned: Any = output.args[0]
    output.args = (tuple(value for value in returned if value is not None),)  # None is no output
    return program


def decomposed(program: torch.export.ExportedProgram, table: dict[Any, Any]) -> torch.export.ExportedProgram:
    try:
        return program.run_decompositions(table)
    except Exception as error:
        raise ExportError(
            f"TVM could not import the graph, whose operators have no simpler terms: {error}"
        ) from error


def name_of(node: fx.Node) -> str | None:
    """Of what a node calls, as the importer has it; None for other nodes, which may be anything."""
    return getattr(node.target, "__name__", "") if node.op == "call_function" else None


def described(node: fx.Node) -> str:
    """What PyTorch made of an operator is told as that operator, which the user wrote."""
    line = source_line(node)
    return f"{node.meta.get('original_aten', node.target)} (node {node.name})" + (
        f" from {line}" if line else ""
    )


def imported(convert: Callable[[fx.Node], Any]) -> Row:
    """A row of the importer's own."""
    return lambda node, _: convert(node)


def in_bfloat16(node: fx.Node) -> bool:
    return node.op == "call_function" and getattr(node.meta.get("val"), "dtype", None) == torch.bfloat16


def located(convert: Row) -> Row:
    """A row whose errors name the node; it is one that its values have other types than PyTorch gives them."""

    def row(node: fx.Node, importer: Any) -> Any:
        try:
            made = convert(node, importer)
            check_types(node, made, importer)
        except Exception as error:
            raise ExportError(f"TVM cannot import {described(node)}: {error}") from error
        return made

    return row


def check_types(node: fx.Node, made: Any, importer: Any) -> None:
    """Of a value, or of those of several that are read. Raises TypeError."""
    wanted, kind = node.meta.get("val"), getattr(made, "ty", None)
    if isinstance(wanted, tuple | list):
        taken: list[Any] = [user.args[1] for user in node.users if user.target is operator.getitem]
        kinds = dict(enumerate(kind.fields)) if isinstance(kind, relax.TupleType) else {0: kind}
        pairs = [(wanted[i], kinds.get(i)) for i in sorted(set(taken))]
    else:
        pairs = [(wanted, kind)]
    for value, each in pairs:
        if isinstance(value, Tensor) and isinstance(each, relax.TensorType):
            name = importer._convert_data_type(value.dtype)
            if each.dtype != name:
                raise TypeError(f"its row computes {each.dtype}, wanted {name}")


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
        name = operator_of(node)
        read = {key: value for key, value in attributes(node).items() if key != OVERLOAD}
        self.nodes.append(TvmNode(name, node.name, read, inputs))
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


def operator_of(node: fx.Node) -> str:
    """Of a node of ours."""
    return str(node.args[1]).removeprefix(f"{DOMAIN}::")


def attributes(node: fx.Node) -> dict[str, Attribute]:
    """From the flat form in which the exporter holds them."""
    flat: dict[str, Any] = dict(node.kwargs)
    pools = {"i": flat["attr_ints"], "f": flat["attr_floats"], "s": flat["attr_strs"]}
    found: dict[str, Attribute] = {}
    for name, kind, (begin, end) in zip(flat["attr_keys"], flat["attr_types"], flat["attr_pos"], strict=True):
        values = tuple(pools[kind[0]][begin:end])
        found[name] = values if len(kind) > 1 else values[0]
    return found
