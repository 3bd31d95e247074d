"""The code itself: the dense weight, which trains, and the index over its rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from hashcompile.core.encoded import EncodedWeight
from hashcompile.core.errors import ArtifactError
from hashcompile.core.rounding import round_bf16
from hashcompile.core.rows import RowView
from hashcompile.core.storage import Storage
from hashcompile.passes.wide.config import MOST_BITS
from hashcompile.passes.wide.sketch import Index

CODED = 1 / 8  # of the bytes of all rows: what a 4-bit codebook reads, and needs no index for


@dataclass(frozen=True)
class Measured:
    """On calibration inputs that the index was not made for, and the weights that it was made for."""

    recall: float  # share of inputs whose best row was among those computed
    recall_ten: float  # share of the ten best, on average
    share: float  # of rows that are computed
    inputs: int
    weights: str


class WideWeight(EncodedWeight):
    """rows (N, K), a parameter: the graph computes all of them. The kernel computes those that `index` finds.

    The index is made once, and does not follow training: compile what was trained anew.
    """

    planes: Tensor
    start: Tensor
    sketches: Tensor
    limit: Tensor

    def __init__(self, view: RowView, rows: Tensor, index: Index, measured: Measured) -> None:
        super().__init__(view)
        self.dense = nn.Parameter(rows)
        for name, value in vars(index).items():
            self.register_buffer(name, value)
        self.measured = measured

    @property
    def index(self) -> Index:
        return Index(self.planes, self.start, self.sketches, self.limit)

    def rows(self) -> Tensor:
        return self.dense

    def scaled(self, factor: Tensor) -> Self:
        return type(self)(self.view, self.dense.detach() * factor[:, None], self.index, self.measured)

    def in_bf16(self) -> Self:
        return type(self)(self.view, round_bf16(self.dense.detach()), self.index, self.measured)

    def candidates(self, x: Tensor) -> Tensor:
        """(..., N) bool of inputs (..., K): what the kernel computes."""
        return self.index.candidates(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)

    def storage(self) -> dict[str, Tensor]:
        return {"values": self.dense.detach(), **vars(self.index)}

    def describe(self) -> dict[str, Any]:
        return {"measured": asdict(self.measured)}

    def remark(self) -> str:
        """Recall and cost, against the full product and against what a codebook would read."""
        found = self.measured
        if found.weights != digest(self.dense.detach()):
            return "its weights have changed since its index was made: recall is not known, compile it anew"
        rows, columns = self.view.size
        read = found.share + (self.planes.nbytes + self.sketches.nbytes) / (4 * max(1, rows * columns))
        text = (
            f"computes {found.share:.2%} of {rows} rows with sketches of {len(self.start)} bit, recall of the best "
            f"{found.recall:.2%}, of the ten best {found.recall_ten:.2%}, on {found.inputs} inputs; "
            f"for one input it reads {read:.2%} of the full product's bytes"
        )
        if read >= 0.5:
            return f"{text}: does not pay, leave it dense or encode it"
        if read >= CODED:
            return f"{text}: fewer than the full product, more than the {CODED:.1%} of 4-bit codes"
        return f"{text}: fewer than the {CODED:.1%} of 4-bit codes"

    @classmethod
    def restore(cls, view: RowView, description: Mapping[str, Any], storage: Storage) -> Self:
        start = storage.tensors.get("start")
        if start is None or start.ndim != 1 or not 8 <= len(start) <= MOST_BITS or len(start) % 8:
            raise ArtifactError("a wide weight whose sketches have no number of bits")
        (rows, columns), bits = view.size, len(start)
        wanted = {
            "values": (torch.float32, (rows, columns)),
            "planes": (torch.float32, (columns, bits)),
            "start": (torch.float32, (bits,)),
            "sketches": (torch.uint8, (bits // 8, rows)),
            "limit": (torch.uint8, (rows,)),
        }
        held = {name: storage.tensor(name, *kind) for name, kind in wanted.items()}
        try:
            measured = Measured(**description["measured"])
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"what was measured of a wide weight cannot be read: {error}") from error
        index = Index(*(held[name] for name in ("planes", "start", "sketches", "limit")))
        return cls(view, held["values"], index, measured)


def digest(rows: Tensor) -> str:
    """SHA-256 of the values."""
    return hashlib.sha256(rows.contiguous().numpy().data).hexdigest()
