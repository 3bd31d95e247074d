"""Labels of parameters and buffers: of slices where a layer reads one, of single elements where anything else does.

Keyed by the memory of a tensor, found by name: a tied weight has one set of labels, whoever reads it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from torch import Tensor, fx

from hashcompile.core.layers import attribute
from hashcompile.passes.channels.labels import Labels, unlabelled


class Role(StrEnum):
    """What the indices of one dim of a parameter are to the channels that they carry."""

    PRODUCER = "producer"  # outputs of a layer
    CONSUMER = "consumer"  # inputs of a layer: all that stands between a removed channel and the result
    FACTOR = (
        "factor"  # outputs of a layer, which others are multiplied with: where zero, nothing is left of those
    )
    FOLLOWER = "follower"  # biases, norms, scales, tables: one entry a channel


@dataclass
class Held:
    """One tensor, under all its names."""

    tensor: Tensor
    names: list[str] = field(default_factory=list)
    dims: dict[int, Tensor] = field(default_factory=dict)  # dim -> (size,) labels
    roles: dict[int, set[Role]] = field(default_factory=dict)
    elements: Tensor | None = None  # labels of the tensor's own shape
    computes: bool = False  # the weight of a layer is computed from it

    @property
    def element_role(self) -> Role:
        return Role.PRODUCER if self.computes else Role.FOLLOWER


class Parameters:
    """The parameters and buffers of a graph that something reads."""

    def __init__(self, graph: fx.GraphModule, labels: Labels) -> None:
        self.graph, self.labels = graph, labels
        self.by_memory: dict[Any, Held] = {}
        self.by_name: dict[str, Held] = {}

    def held(self, name: str) -> Held:
        if name not in self.by_name:
            tensor: Tensor = attribute(self.graph, name)
            key: Any = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else name
            self.by_name[name] = self.by_memory.setdefault(key, Held(tensor))
            self.by_name[name].names.append(name)
        return self.by_name[name]

    def slices(self, name: str, dim: int, role: Role) -> Tensor:
        """Labels of the slices along `dim`, (size,)."""
        held = self.held(name)
        if dim not in held.dims:
            held.dims[dim] = self.labels.fresh(held.tensor.size(dim))
        held.roles.setdefault(dim, set()).add(role)
        return held.dims[dim]

    def elements(self, name: str) -> Tensor:
        """Labels of the tensor's own shape; a value without channels where it holds no floats, or one number."""
        value = attribute(self.graph, name)
        if not isinstance(value, Tensor) or not value.is_floating_point() or not value.ndim:
            return unlabelled(getattr(value, "shape", ()))
        if value.ndim == 1:
            return self.slices(name, 0, Role.FOLLOWER)
        held = self.held(name)
        if held.elements is None:
            held.elements = self.labels.fresh(*value.shape)
        return held.elements

    def settle(self) -> None:
        """Refuse tensors that are labelled in both ways, or share memory with another one of another shape."""
        owners: dict[int, Held] = {}
        for held in self.by_memory.values():
            other = owners.setdefault(held.tensor.untyped_storage().data_ptr(), held)
            shared = other is not held and held.tensor.numel() > 0
            for each in (held, other) if shared else (held,):
                both = each.elements is not None and each.dims
                if shared or both:
                    why = f"{each.names[0]} is " + (
                        "a view of another tensor" if shared else "read in two ways"
                    )
                    for labels in (*each.dims.values(), each.elements):
                        if labels is not None:
                            self.labels.pin(labels, why)
