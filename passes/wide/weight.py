"""The code itself: the rows, fp32 or codes, which train, and the index over them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from hashcompile.core.encoded import EncodedWeight
from hashcompile.core.entropy import Symbols
from hashcompile.core.errors import ArtifactError
from hashcompile.core.rounding import round_bf16
from hashcompile.core.rows import RowView
from hashcompile.core.storage import Storage
from hashcompile.passes.wide.codes import RowCodes
from hashcompile.passes.wide.config import CODE_BITS, MOST_BITS
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
    asked: float = 0.0  # the recall that was wanted; nothing is below that of a file which does not tell


class WideWeight(EncodedWeight):
    """rows (N, K), a parameter or codes: the graph computes all of them. The kernel computes those that `index` finds.

    The index is made once, and does not follow training: compile what was trained anew.
    """

    planes: Tensor
    start: Tensor
    sketches: Tensor
    limit: Tensor

    second = (
        "rows of a wide layer are read one by one, where those of hc.Codebook are read 32 at a time: "
        "hc.Wide(code_bits=...) gives them codes of their own"
    )

    def __init__(self, view: RowView, rows: Tensor | RowCodes, index: Index, measured: Measured) -> None:
        super().__init__(view)
        self.codes = rows if isinstance(rows, RowCodes) else None
        self.dense = nn.Parameter(rows) if isinstance(rows, Tensor) else None
        for name, value in vars(index).items():
            self.register_buffer(name, value)
        self.measured = measured

    @property
    def index(self) -> Index:
        return Index(self.planes, self.start, self.sketches, self.limit)

    def rows(self) -> Tensor:
        if self.codes is not None:
            return self.codes()
        assert self.dense is not None
        return self.dense

    def scaled(self, factor: Tensor) -> Self:
        rows = self.codes.scaled(factor) if self.codes else self.rows().detach() * factor[:, None]
        return type(self)(self.view, rows, self.index, self.measured)

    def in_bf16(self) -> Self:
        rows = self.codes.in_bf16() if self.codes else round_bf16(self.rows().detach())
        return type(self)(self.view, rows, self.index, self.measured)

    def candidates(self, x: Tensor) -> Tensor:
        """(..., N) bool of inputs (..., K): what the kernel computes."""
        return self.index.candidates(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)

    def storage(self) -> dict[str, Tensor]:
        rows = self.codes.storage() if self.codes else {"values": self.rows().detach()}
        return {**rows, **vars(self.index)}

    def symbols(self) -> dict[str, Symbols]:
        return self.codes.symbols() if self.codes else {}

    def describe(self) -> dict[str, Any]:
        return {"measured": asdict(self.measured), "code_bits": self.codes.bits if self.codes else 0}

    def remark(self) -> str:
        """Recall and cost, against the full product and against what a codebook would read."""
        found = self.measured
        if found.weights != digest(self.rows().detach()):
            return "its weights have changed since its index was made: recall is not known, compile it anew"
        rows, columns = self.view.size
        row = self.codes.row_bytes if self.codes else 4 * columns
        read = found.share * rows * row + self.planes.nbytes + self.sketches.nbytes
        read /= 4 * max(1, rows * columns)
        text = (
            f"computes {found.share:.2%} of {rows} rows with sketches of {len(self.start)} bit, recall of the best "
            f"{found.recall:.2%}, of the ten best {found.recall_ten:.2%}, on {found.inputs} inputs{self.missed()}; "
            f"for one input it reads {read:.2%} of the full product's bytes"
        )
        if read >= 0.5:
            return f"{text}: does not pay, leave it dense or encode it"
        if read >= CODED:
            return f"{text}: fewer than the full product, more than the {CODED:.1%} of 4-bit codes"
        return f"{text}: fewer than the {CODED:.1%} of 4-bit codes"

    def missed(self) -> str:
        """What to do where recall is below what was asked for."""
        if self.measured.recall >= self.measured.asked:
            return ""
        return f", below the {self.measured.asked:g} asked for: calibrate with more inputs, or ask for a higher recall"

    @classmethod
    def restore(cls, view: RowView, description: Mapping[str, Any], storage: Storage) -> Self:
        start = storage.tensors.get("start")
        if start is None or start.ndim != 1 or not 8 <= len(start) <= MOST_BITS or len(start) % 8:
            raise ArtifactError("a wide weight whose sketches have no number of bits")
        (rows, columns), bits = view.size, len(start)
        code_bits = description.get("code_bits", 0)
        if code_bits not in (0, *CODE_BITS) or isinstance(code_bits, bool):
            raise ArtifactError(f"a wide weight with rows of {code_bits!r}-bit codes")
        wanted = {
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
        values: Tensor | RowCodes
        if code_bits:
            values = RowCodes.restore(storage, code_bits, rows, columns)
        else:
            values = storage.tensor("values", torch.float32, (rows, columns))
        return cls(view, values, Index(**held), measured)


def digest(rows: Tensor) -> str:
    """SHA-256 of the values."""
    return hashlib.sha256(rows.contiguous().numpy().data).hexdigest()
