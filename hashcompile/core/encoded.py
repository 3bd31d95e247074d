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

from hashcompile.core.rows import RowView


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

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What an artifact's manifest says beside `storage`, JSON values only."""

    @classmethod
    @abstractmethod
    def restore(cls, view: RowView, description: Mapping[str, Any], storage: Mapping[str, Tensor]) -> Self:
        """Inverse of `describe` and `storage`. Raises ArtifactError if they do not fit one another."""

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
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / max(1, self.view.numel)


def encoded_weights(module: nn.Module) -> dict[str, EncodedWeight]:
    """All encoded weights of a compressed graph, by the name of the parameter each replaces."""
    return {name: child for name, child in module.named_modules() if isinstance(child, EncodedWeight)}
