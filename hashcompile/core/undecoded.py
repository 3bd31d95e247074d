"""A graph run on shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from hashcompile.core.encoded import EncodedWeight


class Undecoded(fx.Interpreter):
    """Codes give a dense weight of their shape, without values: within a fake tensor mode a decode may ask for values,
    such as where a mask is true, and there are none."""

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        code = self.fetch_attr(target)
        assert isinstance(code, EncodedWeight)
        return torch.empty(code.view.shape)
