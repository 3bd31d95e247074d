"""A compressed weight: a module without inputs that returns the dense weight.

In the graph it stands where the parameter stood, in front of a node that does not change:

    %w = call_module[target=fc1.weight]()            # an EncodedWeight
    %y = aten.linear(%x, %w, %b)                     # untouched

so the eager result *is* the reference semantics, and what trains is what the artifact stores.

In a module of the user's it stands for a parameter in the same way, as a parametrization that reads nothing:

    fc.weight                                        # computed by fc.parametrizations.weight[0]()
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from hashcompile.core.entropy import Symbols, coded_size
from hashcompile.core.layers import Kind
from hashcompile.core.on_codes import OnCodes, kernels_compute
from hashcompile.core.rows import RowView
from hashcompile.core.storage import Storage

Candidates = Callable[[Tensor], Tensor]  # inputs of a layer (..., K) -> (..., N) bool


class EncodedWeight(nn.Module, ABC):
    """Base of all codes. Sub-classes own their tensors; `view` says how rows (N, K) become the weight.

    candidates: the outputs that our kernels compute of a layer, where they do not compute all of them.
    second: why no other code is laid over this one, and what there is instead.
    """

    candidates: Candidates | None = None
    second = "leave one stage out, or name other layers in it"

    def __init__(self, view: RowView) -> None:
        super().__init__()
        self.view = view

    @abstractmethod
    def rows(self) -> Tensor:
        """The decoded matrix, (N, K) float32: one row an output channel, differentiable in the parameters."""

    def stored(self) -> EncodedWeight:
        """The code that an artifact has of it; another one while this one still learns."""
        return self

    @abstractmethod
    def scaled(self, factor: Tensor) -> EncodedWeight:
        """A copy whose row n is multiplied by `factor[n]`, (N,): how a batch norm is folded into the code."""

    def joined(self, others: Sequence[EncodedWeight]) -> EncodedWeight | None:
        """A code whose rows are those of this one and then those of `others`; None where there is none of its kind."""
        return None

    def in_int8(self) -> EncodedWeight:
        """A copy as the int8 kernels read it: what they multiply by activations, rounded to 8 bits. This one itself
        where no int8 kernel reads codes of its kind."""
        return self

    @abstractmethod
    def in_bf16(self) -> EncodedWeight:
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
    def restore(cls, view: RowView, description: Mapping[str, Any], storage: Storage) -> EncodedWeight:
        """Inverse of `describe` and `storage`, in which `symbols` may stand for the tensors that they replace.

        Raises ArtifactError if they do not fit one another.
        """

    def remark(self) -> str | None:
        """What the report says of this weight beside its bytes and its error; None for nothing."""
        return None

    def on_codes(self, kind: Kind, given: Mapping[str, Any]) -> Tensor | None:
        """What a layer gives of its arguments, computed on the codes by kernels for their device; None where no kernel
        of ours does that."""
        return None

    def decoded(self) -> Tensor:
        """The dense weight."""
        return self.view.weight(self.rows())

    def forward(self) -> Tensor:
        values = next(self.parameters(), None)
        if values is not None and kernels_compute(values):
            return OnCodes(self.view.shape, values, self.decoded, self.on_codes)
        return self.decoded()

    def right_inverse(self, weight: Tensor) -> tuple[()]:
        """What a parametrization keeps of the parameter it stands for: nothing."""
        return ()

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


CODES = "codes"  # note of a captured graph: the codes that parameters had in the user's module, by parameter


def stand_for(module: nn.Module, leaf: str, code: EncodedWeight) -> None:
    """Let `code` give the value of the parameter `module.<leaf>`, from here on."""
    parametrize.register_parametrization(module, leaf, code)


def own_parameter(leaf: str) -> property:
    """Reads `module.<leaf>` where nn.Module keeps it."""
    return property(lambda module: module._parameters[leaf])


def taken_out(model: nn.Module) -> dict[str, EncodedWeight]:
    """Give parameters their dense values back where codes stand for them; those codes, by parameter.

    For a copy of the user's model: its modules get classes of their own, for a deep copy of a parametrized module has
    the class of the original, with the property that reads the code.
    """
    found: dict[str, EncodedWeight] = {}
    dense: dict[EncodedWeight, nn.Parameter] = {}  # a code that stands for tied parameters is one
    for path, module in list(model.named_modules()):
        if not parametrize.is_parametrized(module):
            continue
        lists: Any = module.parametrizations
        for leaf, (first, *others) in list(lists.items()):
            if not isinstance(first, EncodedWeight) or others:
                continue
            code = first.stored()
            if first not in dense:
                dense[first] = nn.Parameter(code().detach())
            del lists[leaf]
            module.__class__ = type(type(module).__name__, (type(module),), {leaf: own_parameter(leaf)})
            module._parameters[leaf] = dense[first]
            found[f"{path}.{leaf}" if path else leaf] = first
    return found
