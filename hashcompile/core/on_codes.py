"""A weight that is decoded only where somebody reads it: layers that a kernel computes on the codes do not.

In front of an untouched node it takes the place of the dense weight, and the node's own call finds the kernel:

    %w = call_module[target=fc.weight]()      # OnCodes
    %y = aten.linear(%x, %w, %b)              # hashcompile::codebook_linear, where the code knows one; else decoded
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree

from hashcompile.core.device_ops import kernels_for
from hashcompile.core.layers import CONSUMERS, Kind, arguments_of

Consume = Callable[[Kind, Mapping[str, Any]], Tensor | None]


class OnCodes(Tensor):
    """decode: the dense weight. consume: (kind of layer, its arguments by name) -> its output, computed on the codes;
    None where no kernel does that.
    """

    decode: Callable[[], Tensor]
    consume: Consume

    @staticmethod
    def __new__(
        cls, shape: tuple[int, ...], like: Tensor, decode: Callable[[], Tensor], consume: Consume
    ) -> Self:
        self = Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)
        self.decode, self.consume = decode, consume
        return self

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        args, kwargs = tuple(args), dict(kwargs or {})
        kind, position = CONSUMERS.get(func, (None, 0))
        if kind is not None and len(args) > position and isinstance(weight := args[position], cls):
            others, named = decoded((*args[:position], None, *args[position + 1 :])), decoded(kwargs)
            if (made := weight.consume(kind, arguments_of(func, others, named))) is not None:
                return made
        return func(*decoded(args), **decoded(kwargs))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return func(*decoded(args), **decoded(kwargs or {}))


def decoded(values: Any) -> Any:
    """With dense weights in the place of those on codes."""
    return pytree.tree_map_only(OnCodes, lambda weight: weight.decode(), values)


def kernels_compute(values: Tensor) -> bool:
    """May layers compute on the codes that `values` belong to? Where there are kernels for their device, and nobody
    wants gradients or a trace of what is computed.
    """
    return (
        kernels_for(values.device) is not None
        and not (torch.is_grad_enabled() and values.requires_grad)
        and not torch.compiler.is_compiling()
        and not isinstance(values, FakeTensor)
        and not torch.is_autocast_enabled(values.device.type)
    )
