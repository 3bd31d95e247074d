"""What every file is measured on: inputs of the same size for all, the user's own or made up.

Where one file fixes a size, so do all.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hashcompile.core.errors import ArtifactError, ConfigError
from hashcompile.core.interface import Input
from hashcompile.model_file import ModelFile, is_archive

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Sizes:
    """What the user says of the inputs; the same for every file, so that only the file differs."""

    batch: int | None = None  # of a symbolic first dimension; None: what another file fixes, else 1
    dims: Mapping[str, int] = field(default_factory=dict)  # of symbolic dimensions; the rest are 1
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)  # by the name of the input
    inputs: Path | None = None  # an .npz with the arrays themselves, by the name of the input

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise ConfigError(f"batch is {self.batch}, wanted at least 1")


def inputs_for(models: Sequence[ModelFile], sizes: Sizes) -> list[Arrays]:
    """The arrays that each model runs on, by name. Raises ConfigError where models cannot run the same sizes, and
    ArtifactError for an .npz that does not fit.

    Inputs of one name are the same input, and so are those at one place as far as their batch goes.
    """
    check_names(models, sizes)
    if sizes.inputs:
        return own_arrays(models, sizes.inputs)
    return [
        {each.name: made_up(model, each, shapes[each.name]) for each in model.inputs}
        for model, shapes in zip(models, settle(models, sizes), strict=True)
    ]


def made_up(model: ModelFile, declared: Input, shape: Sequence[int]) -> npt.NDArray[Any]:
    """Normal noise, and 1 for integers: a valid token, a full mask."""
    if declared.dtype is None or declared.dtype.kind not in "fiub":
        raise ArtifactError(f"{model.path}: its input {declared.name!r} cannot be made up: give --inputs")
    generator = np.random.default_rng(zlib.crc32(declared.name.encode()))
    made = generator.standard_normal(shape) if declared.dtype.kind == "f" else np.ones(shape)
    return made.astype(declared.dtype)


def check_names(models: Sequence[ModelFile], sizes: Sizes) -> None:
    """A name that no file has is a slip of the pen, and would be measured as if nothing had been said."""
    inputs = [declared for model in models for declared in model.inputs]
    symbols = {size for declared in inputs for size in declared.shape if isinstance(size, str)} - {""}
    for what, given, known in (
        ("dimension", sizes.dims, symbols),
        ("input", sizes.shapes, {declared.name for declared in inputs}),
    ):
        if unknown := sorted(set(given) - known):
            raise ConfigError(
                f"no {what} is named {unknown[0]!r}; there is {', '.join(sorted(known)) or 'none'}"
            )


def settle(models: Sequence[ModelFile], sizes: Sizes) -> list[dict[str, list[int]]]:
    """The shapes of every model's inputs, by name. Raises ConfigError."""
    fixed: dict[tuple[str | int, int], tuple[int, Path]] = {}
    for model in models:
        check_batch(model, sizes)
        for slot, size, name in slots(model.inputs):
            if not isinstance(size, int) or name in sizes.shapes:
                continue
            known, owner = fixed.setdefault(slot, (size, model.path))
            if known != size:
                raise ConfigError(
                    f"{model.path} fixes dimension {slot[1]} of its input {name!r} at {size}, but {owner} fixes it at "
                    f"{known}: export one of them with that size symbolic, or at the other's size"
                )
    return [shapes_of(model, fixed, sizes) for model in models]


def slots(inputs: Sequence[Input]) -> Iterator[tuple[tuple[str | int, int], int | str, str]]:
    """(what it is compared by, size, name of the input) of every dimension."""
    for place, declared in enumerate(inputs):
        for axis, size in enumerate(declared.shape):
            if axis == 0:
                yield (place, 0), size, declared.name
            yield (declared.name, axis), size, declared.name


def check_batch(model: ModelFile, sizes: Sizes) -> None:
    """A batch that a file cannot take is not the batch that is measured."""
    first = {
        each.name: each.shape[0] for each in model.inputs if each.shape and each.name not in sizes.shapes
    }
    if sizes.batch is None or not first or any(isinstance(size, str) for size in first.values()):
        return
    if sizes.batch not in first.values():
        name, size = next(iter(first.items()))
        raise ConfigError(
            f"{model.path} fixes the batch of its input {name!r} at {size}, but --batch is {sizes.batch}: "
            f"give --batch {size}, or export the file with a symbolic batch"
        )


def shapes_of(
    model: ModelFile, fixed: Mapping[tuple[str | int, int], tuple[int, Path]], sizes: Sizes
) -> dict[str, list[int]]:
    """The sizes of one file: what was asked for, else what a file fixes, else the batch, else 1."""
    symbols: dict[str, int] = {}  # equal symbols are equal sizes
    for slot, size, name in slots(model.inputs):
        if slot not in fixed or not isinstance(size, str) or name in sizes.shapes:
            continue
        wanted, owner = fixed[slot]
        asked = sizes.dims.get(size, sizes.batch if slot[1] == 0 else None)
        if asked not in (None, wanted):
            raise ConfigError(
                f"{owner} fixes dimension {slot[1]} of its input at {wanted}, and {asked} was asked for {name!r} of "
                f"{model.path}: ask for {wanted}, or export {owner.name} with that size symbolic"
            )
        if size:
            symbols[size] = wanted
    symbols |= sizes.dims

    def resolve(place: int, name: str, axis: int, size: int | str) -> int:
        if isinstance(size, int):
            return size
        for slot in ((name, axis), (place, axis)):
            if slot in fixed:
                return fixed[slot][0]
        return symbols.get(size, (sizes.batch or 1) if axis == 0 else 1)

    return {
        each.name: list(sizes.shapes[each.name])
        if each.name in sizes.shapes
        else [resolve(place, each.name, axis, size) for axis, size in enumerate(each.shape)]
        for place, each in enumerate(model.inputs)
    }


def own_arrays(models: Sequence[ModelFile], path: Path) -> list[Arrays]:
    """What every model takes of an .npz. Raises ArtifactError that names the .npz."""
    is_archive(path)  # refuses what is not a readable file
    try:
        with np.load(path) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path}: not an .npz file of numbers ({error})") from error
    for model in models:
        if missing := sorted({each.name for each in model.inputs} - set(arrays)):
            raise ArtifactError(
                f"{path} has no array named {', '.join(missing)}, which {model.path} takes; "
                f"it has {', '.join(sorted(arrays)) or 'none'}"
            )
        for each in model.inputs:
            got = arrays[each.name]
            fits = len(got.shape) == len(each.shape) and all(
                isinstance(size, str) or size == given
                for size, given in zip(each.shape, got.shape, strict=True)
            )
            if not fits or each.dtype not in (None, got.dtype):
                raise ArtifactError(
                    f"{path}: its array {each.name!r} is {got.dtype} {by(got.shape)}, "
                    f"but {model.path} takes {each.dtype} {by(each.shape)}"
                )
    return [{each.name: arrays[each.name] for each in model.inputs} for model in models]


def by(shape: Sequence[int | str]) -> str:
    return "x".join(str(size) or "?" for size in shape) or "scalar"
