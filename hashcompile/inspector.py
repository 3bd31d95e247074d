"""What is in a file, read without running it: layers of an ONNX file or `.hc` artifact, inputs of a TVM library."""

import json
import math
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import onnx
from onnx.external_data_helper import ExternalDataInfo, uses_external_data
from rich.console import Group, RenderableType

from hashcompile.container import GRAPH, TENSORS, read_manifest
from hashcompile.core import elf
from hashcompile.core.console import format_bytes, table
from hashcompile.core.entropy import CODER
from hashcompile.core.method import CODES
from hashcompile.core.onnx_op import DOMAIN
from hashcompile.core.rows import RowView
from hashcompile.lower.chain_op import FIELDS
from hashcompile.lower.chain_op import OPERATOR as CHAIN
from hashcompile.lower.feed_forward import SECOND
from hashcompile.lower.onnx import is_codes, layer_of
from hashcompile.model_file import beginning, files_of, is_archive, read_library, read_onnx

COMPUTE = {code: compute for compute, code in CODES.items()}


@dataclass(frozen=True)
class LayerInfo:
    """One compressed layer; a field that the file does not tell is None."""

    name: str
    op: str
    bits: int | None
    shape: tuple[int, ...] | None  # of the weight, seen as rows: (N, K)
    bytes: int  # everything stored for it: codes, tables, scales, and in ONNX the bias
    compute: str | None  # None: it computes nothing on the codes, and only looks up or decodes
    shared_with: str | None = None  # the layer that stores the weight, and counts its bytes
    packed_bytes: int | None = (
        None  # what `bytes` would be without entropy coding; None where nothing is coded
    )
    coder: str | None = None


@dataclass(frozen=True)
class Contents:
    """A file and its compressed layers; `ours` is false for an ONNX file made by someone else."""

    file: str
    ours: bool
    file_bytes: int
    compressed_bytes: int  # what compressed layers store; what two of them share counts once
    other_bytes: int  # tensors that were left as they are
    layers: tuple[LayerInfo, ...]
    operators: Mapping[str, int]  # nodes of each kind in an ONNX graph, most frequent first


@dataclass(frozen=True)
class InputInfo:
    name: str
    dtype: str
    shape: tuple[int | str, ...]  # a string is a symbol


@dataclass(frozen=True)
class LibraryContents:
    """A TVM library: what it runs on, and what it takes. Its layers are constants and code, and not told apart."""

    file: str
    machine: str  # x86_64, aarch64
    cuda: bool  # it computes on a GPU
    file_bytes: int
    inputs: tuple[InputInfo, ...]  # in the order of main's arguments


def inspect(path: Path) -> Contents | LibraryContents:
    """Read `path`, .onnx, .hc or .so by what it holds, not by its name. Raises ArtifactError if it is none of ours."""
    if beginning(path) == elf.MAGIC:
        return inspect_library(path)
    return inspect_artifact(path) if is_archive(path) else inspect_onnx(path)


def inspect_library(path: Path) -> LibraryContents:
    library = read_library(path)
    assert library.machine is not None, "a library is made for one"
    inputs = tuple(InputInfo(each.name, str(each.dtype), each.shape) for each in library.inputs)
    return LibraryContents(str(path), library.machine, library.cuda, library.nbytes, inputs)


def inspect_onnx(path: Path) -> Contents:
    model = read_onnx(path)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    ours = [node for node in model.graph.node if node.domain == DOMAIN]
    layers = layer_infos(ours, tensors)
    compressed = sum(layer.bytes for layer in layers)
    return Contents(
        file=str(path),
        ours=bool(ours),
        file_bytes=sum(file.stat().st_size for file in files_of(path, model)),
        compressed_bytes=compressed,
        other_bytes=sum(map(stored_bytes, tensors.values())) - compressed,
        layers=layers,
        operators=dict(Counter(node.op_type for node in model.graph.node).most_common()),
    )


class Encoded(NamedTuple):
    """One weight that a node of ours reads."""

    layer: str
    op: str
    bits: int | None
    rows: int | None
    columns: int | None
    compute: int | None
    constants: list[str]  # codes, codebook, scale, bias, or values, scale: as many as the file stores


def layer_infos(
    nodes: Iterable[onnx.NodeProto], tensors: Mapping[str, onnx.TensorProto]
) -> tuple[LayerInfo, ...]:
    """What our nodes say of themselves; codes that two of them read belong to the first."""
    owners: dict[str, str] = {}
    counted: set[str] = set()
    layers = []
    for node in nodes:
        for weight in (chain_weights if node.op_type == CHAIN else node_weights)(node, tensors):
            constants = weight.constants
            owner = owners.setdefault(constants[0], weight.layer) if constants else weight.layer
            layers.append(
                LayerInfo(
                    name=weight.layer,
                    op=weight.op,
                    bits=weight.bits,
                    shape=(weight.rows, weight.columns) if weight.rows and weight.columns else None,
                    bytes=sum(stored_bytes(tensors[name]) for name in constants if name not in counted),
                    compute=COMPUTE.get(weight.compute) if weight.compute is not None else None,
                    shared_with=owner if owner != weight.layer else None,
                )
            )
            counted.update(constants)
    return tuple(layers)


def node_weights(node: onnx.NodeProto, tensors: Mapping[str, onnx.TensorProto]) -> Iterator[Encoded]:
    """Of any other node. What stands before the codes is what they are applied to, constant or not; what its attributes
    say of a second weight ends in SECOND.
    """
    names = list(node.input)
    given = {item.name: item.i for item in node.attribute}
    starts = [i for i, name in enumerate(names) if name in tensors and is_codes(name)]
    ends = [*starts[1:], len(names)]
    for start, end, ending in zip(starts or [len(names)], ends, ("", SECOND), strict=False):
        constants = [name for name in names[start:end] if name in tensors]
        bits, columns = (given.get(f"{name}{ending}") for name in ("bits", "in_features"))
        rows = given.get("rows", rows_of_scale(constants, tensors))
        layer = layer_of(constants[0]) if ending else node.name
        yield Encoded(layer, node.op_type, bits, rows, columns, given.get("compute"), constants)


def chain_weights(node: onnx.NodeProto, tensors: Mapping[str, onnx.TensorProto]) -> Iterator[Encoded]:
    """Of a chain, in the order of its steps: four constants each, behind the activations."""
    given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    values, first = given.get("steps", ()), given.get("activations", 0)
    for start in range(0, len(values) - len(FIELDS) + 1, len(FIELDS)):
        step = dict(zip(FIELDS, values[start:], strict=False))
        if step["weight"] >= 0:
            names = node.input[first + 4 * step["weight"] :][:4]
            constants = [name for name in names if name in tensors]
            layer = layer_of(constants[0]) if constants else node.name
            rows = rows_of_scale(constants, tensors)
            yield Encoded(
                layer, node.op_type, step["bits"], rows, step["in_features"], CODES["int8"], constants
            )


def rows_of_scale(constants: Sequence[str], tensors: Mapping[str, onnx.TensorProto]) -> int | None:
    """Of codes, codebook, scale: the scale has one entry a row."""
    return math.prod(tensors[constants[2]].dims) if len(constants) > 2 else None


def stored_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes of a tensor's values, in the file or beside it."""
    if uses_external_data(tensor):
        return ExternalDataInfo(tensor).length or 0
    values = math.prod(tensor.dims)
    return len(tensor.raw_data) or values * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def inspect_artifact(path: Path) -> Contents:
    manifest = read_manifest(path)
    sizes = tensor_sizes(path)
    computing = computing_weights(path)
    layers = []
    for name, code in manifest["codes"].items():
        view = RowView(tuple(code["view"]["shape"]), code["view"]["transposed_groups"])
        stored = {key: size for key, size in sizes.items() if key.startswith(f"code.{name}.")}
        coded = {key: about["packed"] for key, about in manifest.get("coded", {}).items() if key in stored}
        layers.append(
            LayerInfo(
                name=name.removesuffix(".weight"),
                op=code["method"],
                bits=code.get("bits"),
                shape=view.size,
                bytes=sum(stored.values()),
                compute=manifest["extra"]["compute"] if name in computing else None,
                packed_bytes=sum((stored | coded).values()) if coded else None,
                coder=CODER if coded else None,
            )
        )
    compressed = sum(layer.bytes for layer in layers)
    return Contents(
        file=str(path),
        ours=True,
        file_bytes=path.stat().st_size,
        compressed_bytes=compressed,
        other_bytes=sum(sizes.values()) - compressed,
        layers=tuple(layers),
        operators={},
    )


def computing_weights(path: Path) -> set[str]:
    """The parameters that a linear layer or a convolution with a kernel of ours reads, from the graph's JSON."""
    with zipfile.ZipFile(path) as archive:
        module = json.loads(archive.read(GRAPH))["graph_module"]
    parameters = {
        spec["parameter"]["arg"]["name"]: spec["parameter"]["parameter_name"]
        for spec in module["signature"]["input_specs"]
        if "parameter" in spec
    }
    found = set()
    for node in module["graph"]["nodes"]:
        arguments = {item["name"]: item["arg"] for item in node["inputs"]}
        if node["target"].split(".")[-2:-1] in (["linear"], ["conv1d"], ["conv2d"]):
            found.add(arguments["weight"].get("as_tensor", {}).get("name"))
    return {parameter for argument, parameter in parameters.items() if argument in found}


def tensor_sizes(path: Path) -> dict[str, int]:
    """Bytes of every tensor of a `.hc` file, from the safetensors header: a length, then JSON."""
    with zipfile.ZipFile(path) as archive, archive.open(TENSORS) as member:
        header = json.loads(member.read(int.from_bytes(member.read(8), "little")))
    offsets = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    return {name: end - begin for name, (begin, end) in offsets.items()}


def as_table(contents: Contents | LibraryContents) -> RenderableType:
    """For a person. A file that is not ours says so, and what it is instead."""
    size = format_bytes(contents.file_bytes)
    if isinstance(contents, LibraryContents):
        given = [(each.name, each.dtype, " x ".join(map(str, each.shape))) for each in contents.inputs]
        where = f"{contents.machine} with a GPU of NVIDIA's" if contents.cuda else contents.machine
        footer = (
            f"\n{size} on disk, a TVM library for {where}; what it holds of single layers is not told apart"
        )
        return Group(table(("input", "type", ">size"), given), footer)
    if not contents.ours:
        most = ", ".join(f"{count} {name}" for name, count in list(contents.operators.items())[:5])
        return f"{contents.file}: an ONNX file, but not one of ours: no compressed layers. {size}; {most}."
    rows = [
        (
            layer.name,
            layer.op,
            "-" if layer.bits is None else str(layer.bits),
            " x ".join(map(str, layer.shape or ())) or "-",
            f"shared with {layer.shared_with}" if layer.shared_with else f"{layer.bytes:,}",
            "-" if layer.packed_bytes is None else f"{layer.packed_bytes:,} without {layer.coder}",
            layer.compute or "-",
        )
        for layer in contents.layers
    ]
    compressed, other = f"{contents.compressed_bytes:,}", f"{contents.other_bytes:,}"
    footer = f"\n{size} on disk: {compressed} bytes in compressed layers, {other} in other tensors"
    return Group(table(("layer", "op", ">bits", ">weight", ">bytes", ">packed", "compute"), rows), footer)
