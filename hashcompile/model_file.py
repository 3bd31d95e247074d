"""A model in a file, ONNX or a TVM library of ours, by what it holds and not by its name. Nothing is run or loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from hashcompile.core import elf, interface
from hashcompile.core.errors import ArtifactError
from hashcompile.core.interface import Input
from hashcompile.core.onnx_op import DOMAIN


@dataclass(frozen=True)
class ModelFile:
    path: Path
    format: Literal["onnx", "tvm"]
    files: tuple[Path, ...]  # the file itself, and those beside it that hold its weights
    inputs: tuple[Input, ...]
    ours: bool  # it has nodes that our kernels run
    machine: str | None = None  # what a library is made for; None: any
    cuda: bool = False  # a library that computes on a GPU

    @property
    def nbytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)


def read(path: Path) -> ModelFile:
    """Raises ArtifactError for what is neither."""
    if beginning(path) == elf.MAGIC:
        return read_library(path)
    model = read_onnx(path)
    ours = any(node.domain == DOMAIN for node in model.graph.node)
    return ModelFile(path, "onnx", tuple(files_of(path, model)), inputs_of(model), ours)


def read_library(path: Path) -> ModelFile:
    """A shared library that `export_tvm` wrote, which says what it takes. Raises ArtifactError for any other."""
    section = elf.read_section(path, interface.SECTION)
    if section.content is None:
        raise ArtifactError(
            f"{path}: a shared library, but not one that hashcompile wrote: nothing tells its inputs; "
            "compiled.export_tvm(...) makes one that does"
        )
    try:
        told = interface.decode(section.content)
    except ValueError as error:
        raise ArtifactError(
            f"{path}: damaged: what it says of its inputs cannot be read ({error})"
        ) from error
    return ModelFile(path, "tvm", (path,), told.inputs, True, section.machine, told.kind == "cuda")


def read_onnx(path: Path) -> onnx.ModelProto:
    """The structure of an ONNX file, without its external data. Raises ArtifactError for anything else."""
    if is_archive(path):
        raise ArtifactError(
            f'{path}: an archive, not an ONNX file: hc.load("{path}").export_onnx(...) makes one'
        )
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise ArtifactError(f"{path}: not an ONNX file, or cut short ({error})") from error
    if not model.ir_version or not model.HasField("graph"):
        raise ArtifactError(f"{path}: not an ONNX file: it holds no graph")
    return model


def is_archive(path: Path) -> bool:
    """Does it begin as a zip, and so perhaps as an `.hc` artifact? Raises ArtifactError if it cannot be read."""
    return beginning(path) == b"PK\x03\x04"


def beginning(path: Path) -> bytes:
    """The first four bytes of a file. Raises ArtifactError if it cannot be read, or has none."""
    if path.is_dir():
        raise ArtifactError(f"{path} is a directory: give a file in it")
    if not path.exists():
        raise ArtifactError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    if not start:
        raise ArtifactError(f"{path} is empty: 0 bytes")
    return start


def files_of(path: Path, model: onnx.ModelProto) -> list[Path]:
    """The file, and the files beside it that hold its external data. Raises ArtifactError where one is missing."""
    names = {
        ExternalDataInfo(tensor).location for tensor in model.graph.initializer if uses_external_data(tensor)
    }
    beside = [path.parent / name for name in sorted(names)]
    for missing in (file for file in beside if not file.is_file()):
        raise ArtifactError(f"{path}: its weights are in {missing.name}, which is not beside it")
    return [path, *beside]


def inputs_of(model: onnx.ModelProto) -> tuple[Input, ...]:
    """What a caller has to give: old files list their weights among the inputs too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    found = []
    for node in model.graph.input:
        kind = node.type.tensor_type
        shape = tuple(dim.dim_param if dim.dim_value < 1 else dim.dim_value for dim in kind.shape.dim)
        numbers = kind.elem_type not in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type) if numbers else None
        found.append(Input(node.name, shape, dtype))
    return tuple(declared for declared in found if declared.name not in weights)
