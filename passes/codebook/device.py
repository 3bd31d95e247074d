"""The PyTorch row: a layer computed on its codes by our operators, on a device for which there are kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hashcompile.core import device_ops
from hashcompile.core.layers import Kind, Window
from hashcompile.core.packing import PAIR, pack

if TYPE_CHECKING:
    from hashcompile.passes.codebook.weight import CodebookWeight


def on_codes(code: CodebookWeight, kind: Kind, given: Mapping[str, Any]) -> Tensor | None:
    """`given`: the arguments of the layer, by name."""
    tables = code.codebook.float(), code.scale.float()
    form = code.bits, code.group_rows
    if kind is Kind.EMBEDDING:
        ids, columns = given["indices"], code.view.size[1]
        return torch.ops.hashcompile.codebook_embedding(
            ids.long(), packed(code), *tables, *form, columns, code.codebook.dtype
        )
    x, bias = given["input"], given["bias"]
    if x.dtype != code.codebook.dtype or x.dtype not in device_ops.DTYPES:
        return None
    added = None if bias is None else bias.float()
    if kind is Kind.LINEAR and x.shape[-1] == code.view.size[1]:
        return torch.ops.hashcompile.codebook_linear(x, packed(code), *tables, added, *form)
    if kind is Kind.CONV and x.ndim == len(code.view.shape) and x.ndim < 5:
        return convolved(code, x, added, Window.given(given, code.view.shape))
    return None


def convolved(code: CodebookWeight, x: Tensor, bias: Tensor | None, window: Window) -> Tensor | None:
    """Of one dim as of two, the first of them 1. Groups of fewer rows than a warp has are left to PyTorch."""
    if code.view.size[0] // window.groups < PAIR or x.shape[1] != code.view.shape[1] * window.groups:
        return None
    flat = len(window.kernel) == 1
    one, none = ((1,), (0,)) if flat else ((), ())
    y = torch.ops.hashcompile.codebook_conv2d(
        x.unsqueeze(2) if flat else x,
        packed(code, channels_last=True),
        code.codebook.float(),
        code.scale.float(),
        bias,
        code.bits,
        code.group_rows,
        [*one, *window.kernel],
        [*one, *window.stride],
        [*none, *window.before, *none, *window.after],
        [*one, *window.dilation],
        window.groups,
    )
    return y.squeeze(2) if flat else y


def packed(code: CodebookWeight, channels_last: bool = False) -> Tensor:
    """The codes in the T16 layout, where the indices are; packed once, until these change."""
    key = (code.indices.data_ptr(), code.indices._version, channels_last)
    held = code.__dict__.get("_packed")
    if held is None or held[0] != key:
        indices = code.indices
        if channels_last:
            indices = indices.reshape(code.view.shape).movedim(1, -1).reshape(code.view.size)
        codes = torch.from_numpy(pack(indices.cpu().numpy(), code.bits)).to(code.indices.device)
        code.__dict__["_packed"] = held = (key, codes)
    return held[1]
