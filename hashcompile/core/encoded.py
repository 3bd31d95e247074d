"""A compressed weight: a module without inputs that returns the dense weight.

In the graph it stands where the parameter stood, in front of a node that does not change:

    %w = call_module[target=fc1.weight]()            # an EncodedWeight
    %y = aten.linear(%x, %w, %b)                     # untouched

so the eager result *is* the reference semantics, and what trains is what the artifact stores.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

from torch import Tensor, nn

from hashcompile.core.entropy import Symbols, coded_size
from hashcompile.core.rows import RowView
from hashcompile.core.storage import Storage


class EncodedWeight(nn.Module, ABC):
    """Base of all codes. Sub-classes own their tensors; `view` says how rows (N, K) become the weight."""

    def __init__(self, view: RowView) -> None:
        super().__init__()
        self.view = view

    @abstractmethod
    def rows(self) -> Tensor:
        """The decoded matrix, (N, K) float32: one row an output channel, differentiable in the parameters."""

    @abstractmethod
    def scaled(self, factor: Tensor) -> Self:
        """A copy whose row n is multiplied by `factor[n]`, (N,): how a batch norm is folded into the code."""

    def joined(self, others: Sequence[EncodedWeight]) -> Self | None:
        """A code whose rows are those of this one and then those of `others`; None where there is none of its kind."""
        return None

    @abstractmethod
    def in_bf16(self) -> Self:
        """A copy as the bf16 kernels read it: what they multiply by activations, rounded to bf16."""

    @abstractmethod
    def storage(self) -> dict[str, Tensor]:
        """What an artifact stores, in its packed form. Its bytes are the honest size of this weight."""

    def symbols(self) -> dict[str, Symbols]:
        """The whole numbers in `storage`, for an entropy coder, each by a name of its own or of what it stands for."""
        return {}

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What an artifact's manifest says beside `storage`, JSON values only."""

    @classmethod
    @abstractmethod
    def restore(cls, view: RowView, description: Mapping[str, Any], storage: Storage) -> Self:
        """Inverse of `describe` and `storage`, in which `symbols` may stand for the tensors that they replace.

        Raises ArtifactError if they do not fit one another.
        """

    def remark(self) -> str | None:
        """What the report says of this weight beside its bytes and its error; None for nothing."""
        return None

    def forward(self) -> Tensor:
        return self.view.weight(self.rows())

    @property
    def nbytes(self) -> int:
        """Bytes on disk: every code, table and scale, padding included."""
        return sum(tensor.nbytes for tensor in self.storage().values())

    @property
    def coded_nbytes(self) -> int:
        """Bytes on disk where numbers are entropy-coded that are smaller so; a few bytes off."""
        stored, saved = self.storage(), 0
        for symbols in self.symbols().values():
            packed = sum(stored[name].nbytes for name in symbols.instead)
            saved += max(0, packed - coded_size(symbols.values.numpy(), symbols.size))
        return self.nbytes - saved

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / max(1, self.view.numel)


def encoded_weights(module: nn.Module) -> dict[str, EncodedWeight]:
    """All encoded weights of a compressed graph, by the name of the parameter each replaces."""
    return {name: child for name, child in module.named_modules() if isinstance(child, EncodedWeight)}
