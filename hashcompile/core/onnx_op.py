"""What a method's ONNX row returns: one fused node, its constants, and its meaning in standard operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hashcompile.core.rows import RowView

DOMAIN = "com.hashcompile"
VERSION = 1  # of the domain's operator set
OPSET = 20  # of the standard operators in graphs and bodies

OVERLOAD = "overload"

Attribute = int | float | str | tuple[int, ...] | tuple[float, ...]


@dataclass(frozen=True)
class OnnxOp:
    """One node in place of `decode + consumer`.

    `overload` names the specialised body; nodes of one operator and one overload share one body, which is written in
    ONNX's text form with inputs (X, *constants) and one output Y. A runtime that knows the operator takes its own
    kernel and never looks at the body; every other runtime inlines it.
    """

    operator: str
    overload: str
    constants: Callable[
        [], Mapping[str, Tensor]
    ]  # name in the body -> value, in the order of the node's inputs
    attributes: Mapping[str, Attribute]
    body: str  # the function in ONNX text form
    out_shape: Callable[..., tuple[Any, ...]]  # shape of Y from the activations; sizes may be symbolic
    activations: int = 1  # inputs before the constants; 0: the node only decodes
    kernel: bool = True  # our runtime computes it; False: no runtime does, but from the body

    def exported(self) -> dict[str, Any]:
        """The attributes in the exporter's types. The overload is among them: the exporter has no place for it."""
        values = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self.attributes.items()
        }
        return values | {OVERLOAD: self.overload}


def weight_shapes(view: RowView) -> dict[str, Attribute]:
    """The attributes that `weight_of_rows` reads."""
    row_shape, order = view.order
    return {"row_shape": row_shape, "order": order, "weight_shape": view.shape}


def weight_of_rows(rows: str) -> str:
    """The end of a body that decodes: `rows` (N, K) -> W, as the operators of ONNX want it."""
    return f"""\
    row_shape = Constant<value_ints: ints = @row_shape>()
    weight_shape = Constant<value_ints: ints = @weight_shape>()
    shaped = Reshape({rows}, row_shape)
    ordered = Transpose<perm: ints = @order>(shaped)
    W = Reshape(ordered, weight_shape)"""
