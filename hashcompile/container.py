"""The `.hc` file: a compressed graph without a pickle, whole or refused.

A zip of
    manifest.json        format, version, SHA-256 of every other member, the signature, a description of each code
    graph.json           the graph's structure, in torch.export's own JSON schema
    tensors.safetensors  packed codes, tables and scales, every dense tensor, and a few inputs to verify exports with

With entropy coding, numbers that a code packs are streams of `core.entropy` where that is smaller, and the manifest
says under "coded" how many there are, and of what alphabet; members that deflate well are deflated. Version 1 knew
neither. What codes share, such as a pool of values, is stored once, and "shared" names the others' parts.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor
from torch._export.serde.serialize import SerializedArtifact, deserialize, serialize
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo
from torch.utils import _pytree as pytree

from hashcompile.core import untrusted
from hashcompile.core.encoded import encoded_weights
from hashcompile.core.errors import ArtifactError
from hashcompile.core.files import staged
from hashcompile.core.flatten import dense_shapes, origins, reexport
from hashcompile.core.graph import (
    CompressedGraph,
    as_compressed,
    check,
    flat_copy,
    remove_dead,
    rename,
    replace_weight,
)
from hashcompile.core.layers import attribute
from hashcompile.core.members import add, check_sizes
from hashcompile.core.rows import RowView
from hashcompile.core.signature import Batch, Signature
from hashcompile.core.storage import Storage, claimed, entropy_coded
from hashcompile.passes import method_named, method_of_code

FORMAT, VERSION = "hashcompile", 2
READABLE = (1, VERSION)
MANIFEST, GRAPH, TENSORS = "manifest.json", "graph.json", "tensors.safetensors"


class Contents(NamedTuple):
    graph: CompressedGraph
    signature: Signature
    samples: list[Batch]
    extra: dict[str, Any]


def write(path: str | os.PathLike[str], contents: Contents, coding: bool = True) -> None:
    """Write `contents` to `path`, whole or not at all. Raises ArtifactError."""
    graph, signature, samples, extra = contents
    flat = flat_copy(graph)
    codes = encoded_weights(flat)
    frozen = [name for name, parameter in flat.named_parameters() if not parameter.requires_grad]
    structure = dense_shapes(flat)
    program = reexport(structure, samples[0], signature.shapes)
    names = origins(program, structure)
    for node in program.graph.nodes:
        for note in ("from_node", "stack_trace"):  # addresses in memory, and paths of the user's machine
            node.meta.pop(note, None)
    program._guards_code = []  # Python about the example's sizes: nobody runs it here, so no file says any
    tensors = {f"sample.{i}.{j}": value for i, sample in enumerate(samples) for j, value in enumerate(sample)}
    coded: dict[str, dict[str, int]] = {}
    shared: dict[
        str, str
    ] = {}  # parts that are the memory of an earlier part, such as a pool: later -> first
    owners: dict[int, str] = {}
    for name, code in codes.items():
        held, claims = entropy_coded(code.storage(), code.symbols() if coding else {})
        coded |= {f"code.{name}.{part}": claim for part, claim in claims.items()}
        for part, tensor in held.items():
            own = f"code.{name}.{part}"
            owner = owners.setdefault(tensor.data_ptr(), own) if tensor.numel() else own
            if owner != own and tensors[owner].shape == tensor.shape:
                shared[own] = owner
            else:
                tensors[own] = tensor
    dense = dict(program.state_dict) | dict(program.constants)
    aliases: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    for name, tensor in dense.items():
        if name in codes or not isinstance(tensor, Tensor):
            continue
        key = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else (name,)
        if key in first:  # a tied weight is stored once
            aliases[name] = first[key]
        else:
            first[key] = name
            tensors[f"dense.{name}"] = tensor
    artifact = serialize(program)
    info = graph.graph._codegen.pytree_info  # type: ignore[attr-defined]
    members = {
        GRAPH: bytes(artifact.exported_program),
        TENSORS: safetensors.torch.save(
            {name: value.detach().contiguous() for name, value in tensors.items()}
        ),
    }
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "torch": torch.__version__.split("+")[0],
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
        "signature": signature.describe(),
        "call": {
            "names": info.orig_args,
            "in": pytree.treespec_dumps(info.in_spec),
            "out": pytree.treespec_dumps(info.out_spec),
        },
        "nodes": {value: node for value, node in names.items() if value != node},
        "codes": {
            name: {"method": method_of_code(code).name, "view": asdict(code.view), **code.describe()}
            for name, code in codes.items()
        },
        "coded": coded,
        "parameters": [name for name, _ in structure.named_parameters(remove_duplicate=False)],
        "frozen": frozen,
        "constants": sorted(program.constants),
        "aliases": aliases,
        "shared": shared,
        "samples": len(samples),
        "extra": extra,
    }
    target = Path(path)
    with staged(target) as stage, zipfile.ZipFile(stage / target.name, "w") as archive:
        for name, data in {MANIFEST: json.dumps(manifest, indent=1).encode(), **members}.items():
            add(archive, name, data, deflate=coding)


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a `.hc` file. Raises ArtifactError for any file that is not one of ours, or is damaged."""
    return _open(path)[0]


def read(path: str | os.PathLike[str]) -> Contents:
    """Inverse of `write`. Raises ArtifactError before anything of a damaged file is used."""
    manifest, members = _open(path)
    try:
        return _rebuild(manifest, members)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error
    except Exception as error:
        raise ArtifactError(
            f"{path} is damaged, or not of this version of torch: {type(error).__name__}: {error}"
        ) from error


def _open(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            check_sizes(archive)
            if MANIFEST not in names:
                raise ArtifactError(f"{path} is not a hashcompile file: it has no {MANIFEST}")
            manifest = json.loads(archive.read(MANIFEST))
            if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
                raise ArtifactError(f"{path} is not a hashcompile file")
            if manifest.get("version") not in READABLE:
                raise ArtifactError(
                    f"{path} is of version {manifest.get('version')}; this hashcompile reads 1 to {VERSION}"
                )
            members = {name: archive.read(name) for name in (GRAPH, TENSORS) if name in names}
    except FileNotFoundError as error:
        raise ArtifactError(f"there is no file {path}") from error
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise ArtifactError(f"{path} is not a hashcompile file, or it is truncated: {error}") from error
    sums = manifest.get("sha256")
    if not isinstance(sums, dict):
        raise ArtifactError(f"{path} is not a hashcompile file: its manifest has no checksums")
    for name in (GRAPH, TENSORS):
        if name not in members:
            raise ArtifactError(f"{path} is truncated: it has no {name}")
        if hashlib.sha256(members[name]).hexdigest() != sums.get(name):
            raise ArtifactError(f"{path} is corrupt: {name} does not match its checksum")
    return manifest, members


def _rebuild(manifest: dict[str, Any], members: dict[str, bytes]) -> Contents:
    untrusted.check_graph(json.loads(members[GRAPH]))
    call = manifest["call"]
    frozen, nodes = manifest.get("frozen", ()), dict(manifest.get("nodes", {}))
    held_names = (*manifest["codes"], *manifest["aliases"], *manifest["parameters"], *frozen)
    for name in (*call["names"], *held_names, *nodes, *nodes.values()):
        untrusted.check_name(name)
    tensors = safetensors.torch.load(members[TENSORS])
    for own, owner in manifest.get("shared", {}).items():  # one parameter, whose gradients add up
        whole = tensors[owner]
        whole = whole if isinstance(whole, torch.nn.Parameter) else torch.nn.Parameter(whole)
        tensors[owner] = tensors[own] = whole
    codes = {}
    for name, description in manifest["codes"].items():
        prefix = f"code.{name}."
        view = RowView(tuple(description["view"]["shape"]), description["view"]["transposed_groups"])
        held = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        coded = {
            part: claimed(part, held.pop(part), manifest["coded"][prefix + part])
            for part in tuple(held)
            if prefix + part in manifest.get("coded", {})
        }
        codes[name] = method_named(description["method"]).code.restore(
            view, description, Storage(held, coded)
        )
    dense = {key.removeprefix("dense."): value for key, value in tensors.items() if key.startswith("dense.")}
    dense |= {alias: dense[name] for alias, name in manifest["aliases"].items()}
    parameters = set(manifest["parameters"])
    state: dict[str, Tensor] = {
        name: torch.nn.Parameter(value, requires_grad=value.is_floating_point())
        if name in parameters
        else value
        for name, value in dense.items()
    }
    state |= {
        name: torch.nn.Parameter(torch.zeros(()).expand(code.view.shape)) for name, code in codes.items()
    }
    constants = {name: state.pop(name) for name in manifest["constants"]}
    program = deserialize(SerializedArtifact(members[GRAPH], state, constants, b""))  # type: ignore[arg-type]
    graph = as_compressed(program.module(check_guards=False))
    rename(graph, nodes)
    for name, code in codes.items():
        replace_weight(graph, name, code)
    for name in frozen:
        attribute(graph, name).requires_grad_(False)
    in_spec, out_spec = pytree.treespec_loads(call["in"]), pytree.treespec_loads(call["out"])
    graph._in_spec, graph._out_spec = in_spec, out_spec
    graph.graph.set_codegen(_PyTreeCodeGen(_PyTreeInfo(call["names"], in_spec, out_spec)))
    remove_dead(graph)
    check(graph)
    signature = Signature.restore(manifest["signature"])
    samples = [
        tuple(tensors[f"sample.{i}.{j}"] for j in range(len(signature.names)))
        for i in range(manifest["samples"])
    ]
    return Contents(graph, signature, samples, manifest["extra"])
