"""What structural passes made of a model: the indices that are left of every tensor, and what that saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from hashcompile.core import kept as indices
from hashcompile.core.kept import Kept, Refusal

RESHAPING = "reshaping"  # note of a graph: what was done to it before, and perhaps before it was trained
PARTS = "parts"  # note of a graph: for every path of a parameter that was taken apart, those of its parts, in order


@dataclass(frozen=True)
class Size:
    """Of a whole model."""

    parameters: int
    macs: int  # multiply-accumulate operations of one sample of the example inputs


@dataclass(frozen=True)
class Finding:
    """What an automatic rule read off the units of a layer, and what it made of it."""

    rule: str
    layer: str  # the first of those that share the units
    units: int  # before
    removed: int
    measure: float  # the PQ index; or the mean column norm of the units that stay
    verdict: str


@dataclass(frozen=True)
class Corrected:
    """The outputs of a layer that makes up for removed channels: relative error against the original's, on calibration
    data."""

    layer: str
    before: float
    after: float
    limit: str | None = None  # why less was done than asked for
    predicted: float | None = None  # relative to what varies in its outputs, if what it reads is exact


@dataclass(frozen=True)
class Uncorrected:
    """A layer that lost inputs, and does not make up for them."""

    layer: str
    reason: str


@dataclass(frozen=True)
class Factored:
    """A layer whose product became cheaper ones."""

    layer: str
    parameter: str  # the weight that was there
    factors: tuple[str, ...]  # the parameters in its place, in the order in which inputs meet them
    form: str  # in words, with its ranks
    ranks: tuple[int, ...]  # the sizes between the factors
    before: Size  # of the layer's weight, a sample
    after: Size
    error: float  # relative, of its outputs on calibration data; of the weights without
    svd_error: float | None = None  # that of a truncated SVD of equal cost, where this is none


@dataclass(frozen=True)
class Reshaping:
    """From the model that came first to the one that there is now."""

    kept: Kept = field(compare=False)
    shapes: Mapping[str, tuple[int, ...]]  # of every parameter and buffer that came first
    before: Size
    after: Size
    methods: tuple[str, ...]  # in the order in which they were applied
    refused: tuple[Refusal, ...]  # by the last of each
    findings: tuple[Finding, ...] = ()  # of all steps, in their order
    corrected: tuple[Corrected, ...] = ()  # by the last step
    uncorrected: tuple[Uncorrected, ...] = ()  # by the last step
    factored: tuple[Factored, ...] = ()  # by all steps
    tied: Mapping[str, list[str]] = field(default_factory=dict)  # for every path of a tensor, its other paths
    parts: Mapping[str, list[str]] = field(default_factory=dict)  # `PARTS`: all else here is about parts

    @property
    def of_whole_tensors(self) -> Kept:
        """`kept`, and of every tensor that was taken apart: rows, and what any part has left of the other dims."""
        return dict(self.kept) | {
            name: indices.stacked([(self.kept[part], self.shapes[part]) for part in parts])
            for name, parts in self.parts.items()
        }

    def numel_before(self, parameter: str) -> int | None:
        """How many weights of the model that came first `parameter` stands for, each factor for an equal part of its
        product; None for one that no step knows."""
        if parameter in self.shapes:
            return math.prod(self.shapes[parameter])
        for each in self.factored:
            if parameter in each.factors and each.parameter in self.shapes:
                whole, parts = math.prod(self.shapes[each.parameter]), len(each.factors)
                place = each.factors.index(parameter)
                return whole * (place + 1) // parts - whole * place // parts
        return None

    def then(self, later: Reshaping) -> Reshaping:
        """This step, followed by another one on its result."""
        return replace(
            later,
            kept=indices.compose(self.kept, later.kept),
            shapes=self.shapes,
            before=self.before,
            methods=self.methods + later.methods,
            findings=self.findings + later.findings,
            factored=self.factored + later.factored,
            tied={**self.tied, **later.tied},
            parts={**self.parts, **later.parts},
        )

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "kept": indices.describe(self.kept),
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "before": asdict(self.before),
            "after": asdict(self.after),
            "methods": list(self.methods),
            "refused": [asdict(refusal) for refusal in self.refused],
            "findings": [asdict(finding) for finding in self.findings],
            "corrected": [asdict(each) for each in self.corrected],
            "uncorrected": [asdict(each) for each in self.uncorrected],
            "factored": [asdict(each) for each in self.factored],
            "tied": dict(self.tied),
            "parts": dict(self.parts),
        }

    @classmethod
    def restore(cls, description: Mapping[str, Any]) -> Reshaping:
        """Inverse of `describe`. Raises ValueError, and what dicts and their values raise, for what is none."""
        kept = indices.restore(description["kept"])
        shapes = {str(name): tuple(map(int, shape)) for name, shape in description["shapes"].items()}
        for part in (each for parts in description.get("parts", {}).values() for each in parts):
            if not all(0 <= dim < len(shapes[part]) for dim in kept[part]):
                raise ValueError(f"{part} has no such dims")
        return cls(
            kept,
            shapes,
            Size(**description["before"]),
            Size(**description["after"]),
            tuple(map(str, description["methods"])),
            tuple(Refusal(**refusal) for refusal in description["refused"]),
            tuple(Finding(**finding) for finding in description.get("findings", ())),
            tuple(Corrected(**each) for each in description.get("corrected", ())),
            tuple(Uncorrected(**each) for each in description.get("uncorrected", ())),
            tuple(map(restore_factored, description.get("factored", ()))),
            *(
                {str(name): list(map(str, others)) for name, others in description.get(note, {}).items()}
                for note in ("tied", "parts")
            ),
        )


def restore_factored(entry: Mapping[str, Any]) -> Factored:
    return Factored(
        **{
            **entry,
            "factors": tuple(map(str, entry["factors"])),
            "ranks": tuple(map(int, entry["ranks"])),
            "before": Size(**entry["before"]),
            "after": Size(**entry["after"]),
        }
    )
