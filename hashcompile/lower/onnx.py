"""Compressed graph -> one ONNX file that any ONNX Runtime runs, and that runs fast where our library is registered.

Every node of ours carries a model-local function that says in standard operators what it means. A runtime without the
library inlines it; with the library our kernel is taken instead.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from torch.utils import _pytree as pytree

from hashcompile.core.console import quiet
from hashcompile.core.errors import ExportError
from hashcompile.core.flatten import origins
from hashcompile.core.graph import CompressedGraph
from hashcompile.core.method import Compute
from hashcompile.core.onnx_op import DOMAIN, OPSET, OVERLOAD, VERSION, OnnxOp
from hashcompile.core.rounding import Range
from hashcompile.core.signature import Batch, Signature
from hashcompile.lower.chain_op import OPERATOR as CHAIN
from hashcompile.lower.chain_op import overload
from hashcompile.lower.destination import ONNX
from hashcompile.lower.program import fused
from hashcompile.lower.steps import Chain

EXTERNAL = 1_500_000_000  # bytes from which weights go to a file beside the model: protobuf ends at 2 GiB
CODES = re.compile(r"\.(codes|values|gain)_*$")  # the first constant of a node, whose name tells the layer's
ALIGNMENT = (
    4096  # of external tensors: ONNX Runtime maps them as they lie, and kernels read whole cache lines
)


@dataclass(frozen=True)
class Lowered:
    """The ONNX model in memory; `origin[value]` is the node of the compressed graph that an ONNX value computes."""

    model: ir.Model
    origin: dict[str, str]


def lower(
    graph: CompressedGraph,
    signature: Signature,
    example: Batch,
    compute: Compute,
    ranges: Mapping[str, Range],
) -> Lowered:
    """Lower `graph`; `ranges` are those of activations, by node. Raises ExportError naming the reason."""
    try:
        with torch.no_grad(), quiet():
            made = fused(graph, signature, example, compute, ranges, ONNX)
            exported = torch.onnx.export(made.program, (), dynamo=True, opset_version=OPSET, verbose=False)
    except Exception as error:
        raise ExportError(
            f"the compressed graph could not be lowered to ONNX: {first_line(error)}"
        ) from error
    assert exported is not None and exported.exported_program is not None
    model = exported.model
    name_inputs(model, signature)
    attach_bodies(model, made.ops)
    origin = origins(exported.exported_program, graph)
    origin |= chain_origins(model, made.selection.chains)
    name_outputs(model, output_names(graph), origin)
    strip(model)
    return Lowered(model, origin)


def name_inputs(model: ir.Model, signature: Signature) -> None:
    """Symbolic sizes under the names that the user knows; an unknown one stays without, as equal names mean equal
    sizes. Raises ExportError if a size lost its symbol."""
    renamed: dict[str, str] = {}
    for value, name, shape in zip(model.graph.inputs, signature.names, signature.shapes, strict=True):
        assert value.shape is not None
        for dim, size in enumerate(shape):
            if isinstance(size, str):
                symbol = value.shape[dim]
                if isinstance(symbol, int):
                    raise ExportError(
                        f"input {name!r}: dim {dim} should be symbolic ({size}), the export fixed it to {symbol}"
                    )
                renamed[str(symbol.value)] = size
        if value.name != name:
            value.name = name
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, renamed)) + r")\b") if renamed else None
    if pattern is None:
        return
    for value in every_value(model.graph):
        if value.shape is not None:
            value.shape = ir.Shape(
                [
                    pattern.sub(lambda found: renamed[found[0]], size.value)
                    if isinstance(size, ir.SymbolicDim) and size.value is not None
                    else size
                    for size in value.shape
                ]
            )


def every_value(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def chain_origins(model: ir.Model, chains: Sequence[Chain]) -> dict[str, str]:
    """The same for what leaves a chain, which the exporter traces back to the call alone."""
    outputs = {overload(i): chain.outputs for i, chain in enumerate(chains)}
    return {
        str(value.name): of.name
        for node in model.graph
        if node.domain == DOMAIN and node.op_type == CHAIN
        for value, of in zip(node.outputs, outputs[node.overload], strict=True)
        if value.shape is not None and len(value.shape) == of.meta["val"].ndim
    }


def output_names(graph: CompressedGraph) -> list[str]:
    """A dict's keys, joined with the positions of what its values hold; else `output`, or `output_0`, `output_1` ..."""
    values = pytree.tree_leaves(graph.graph.output_node().args)
    spec = graph.graph._codegen.pytree_info.out_spec  # type: ignore[attr-defined]
    paths, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten(range(spec.num_leaves), spec))
    words = [[str(getattr(key, "key", getattr(key, "idx", ""))) for key in path] for path, _ in paths]
    keyed = bool(paths) and all(path and isinstance(path[0], pytree.MappingKey) for path, _ in paths)
    names = ["_".join(path) for path in words]
    plain = all(re.fullmatch(r"\w+", name, re.ASCII) for name in names)
    if not keyed or not plain or len(set(names)) < len(names) or len(values) != len(names):
        count = sum(value is not None for value in values)
        return ["output"] if count == 1 else [f"output_{position}" for position in range(count)]
    return [name for name, value in zip(names, values, strict=True) if value is not None]


def name_outputs(model: ir.Model, names: Sequence[str], origin: dict[str, str]) -> None:
    """Give the outputs these names. An input that is returned as it is keeps its own."""
    named = [value for value in model.graph.outputs if value.producer() is not None]
    kept = {entry.name for entry in model.graph.inputs} | {
        value.name for node in model.graph for value in node.outputs if value not in named
    }
    for value, name in zip(model.graph.outputs, names, strict=True):
        if value not in named or value.name in names:
            continue
        while name in kept:
            name += "_"
        if value.name in origin:
            origin[name] = origin.pop(value.name)
        value.name = name


def strip(model: ir.Model) -> None:
    """Drop the exporter's notes: they hold stack traces with the user's paths, and bytes that no runtime reads."""
    for holder in (
        model,
        model.graph,
        *model.graph,
        *every_value(model.graph),
        *model.graph.initializers.values(),
    ):
        holder.metadata_props.clear()
        holder.doc_string = None
    model.metadata_props["hashcompile.version"] = metadata.version("hashcompile")


def attach_bodies(model: ir.Model, ops: Iterable[OnnxOp]) -> None:
    """One function for each (operator, overload) in use, and the overload on each node of ours."""
    taken: set[str] = set()
    for node in model.graph:
        if node.domain == DOMAIN:
            node.overload = str(node.attributes.pop(OVERLOAD).value)
            inputs = (str(value.name) for value in node.inputs if value is not None)
            codes = next(filter(is_codes, inputs), None)
            layer = layer_of(codes) if codes else str(node.outputs[0].name)
            layer = node.overload if node.op_type == CHAIN else layer
            names = (layer if i == 0 else f"{layer}.{i}" for i in itertools.count())
            node.name = next(name for name in names if name not in taken)  # errors speak of layers
            taken.add(node.name)
    bodies = {(op.operator, op.overload): op.body for op in ops}
    for (_, variant), text in sorted(bodies.items()):
        ours = f', "{DOMAIN}" : {VERSION}' if f"{DOMAIN}." in text else ""  # a body that calls bodies
        header = f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}{ours}]>'
        proto = onnx.parser.parse_function(header + text)
        proto.overload = variant
        function = ir.serde.deserialize_function(proto)
        model.functions[function.identifier()] = function
    if bodies:
        model.opset_imports[DOMAIN] = VERSION


def layer_of(codes: str) -> str:
    """`layer1.0.conv1` for `layer1.0.conv1.weight.codes`."""
    return re.sub(rf"(\.weight)?{CODES.pattern}", "", codes)


def is_codes(name: str) -> bool:
    return CODES.search(name) is not None


def write(model: ir.Model, path: Path) -> Path:
    """Write `model` (weights in a file beside it where it is large) and check it. Raises ExportError."""
    size = sum(
        value.const_value.nbytes
        for value in model.graph.initializers.values()
        if value.const_value is not None
    )
    if size > EXTERNAL:
        data = f"{path.stem}.{digest(model)}.data"  # named by content: a model that stays keeps its own data
        ir.save(
            model, path, external_data=data, size_threshold_bytes=1024, alignment=ALIGNMENT, align_threshold=0
        )
    else:
        ir.save(model, path)
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the exported model is not valid ONNX: {first_line(error)}") from error
    return path


def digest(model: ir.Model) -> str:
    """Eight hex digits of the weights' SHA-256."""
    hasher = hashlib.sha256()
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            hasher.update(name.encode())
            hasher.update(value.const_value.tobytes())
    return hasher.hexdigest()[:8]


def first_line(error: BaseException) -> str:
    """What went wrong at the root, and at which node: an exporter's own message speaks of its steps."""
    node = ""
    while error.__cause__ is not None:
        error = error.__cause__
        found = re.search(r"translating node %(\w+)", str(error))
        node = f"node {found[1]}: " if found else node
    text = node + str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"
