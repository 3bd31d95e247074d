"""Operators by their names in aten, with and without an underscore behind."""

from __future__ import annotations

from typing import Any

import torch

aten = torch.ops.aten


def packets(names: str) -> list[Any]:
    """The operators of these names, all overloads; `relu` is `relu_` too, where there is one."""
    found = []
    for name in names.split():
        found += [getattr(aten, each) for each in (name, name + "_") if hasattr(aten, each)]
    return found
