"""Rows of operators that take several types, as PyTorch promotes them; those of TVM take one type, and often no bools.

TVM's importer gives a number the type of the tensor beside it, so that 0.5 becomes 0 beside whole numbers, and it
leaves out the factor that `add` and `sub` have for their second operand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from tvm import relax

from hashcompile.core.layers import arguments

Row = Callable[[fx.Node, Any], Any]  # what the importer makes of a node
Two = Callable[[Any, Any], Any]  # an operator of TVM's


def typed(value: Any, dtype: torch.dtype, importer: Any) -> Any:
    """An operand of a node, a number too, as a tensor of type `dtype`."""
    name = importer._convert_data_type(dtype)
    if not isinstance(value, fx.Node):
        return relax.const(value, name)
    tensor = importer.env[value]
    if not isinstance(tensor.ty, relax.TensorType):  # a size
        return importer._prim_value_to_scalar_tensor(tensor, name)
    return tensor if tensor.ty.dtype == name else importer.block_builder.emit(relax.op.astype(tensor, name))


def computed(operator: Two, dtype: torch.dtype, pair: list[Any], node: fx.Node, importer: Any) -> Any:
    """`operator` on two operands of a node in type `dtype`, which is no bool, and the result in the node's type."""
    emit = importer.block_builder.emit
    dtype = torch.int8 if dtype == torch.bool else dtype
    made = emit(operator(*(typed(each, dtype, importer) for each in pair)))
    name = importer._convert_data_type(node.meta["val"].dtype)
    return made if made.ty.dtype == name else emit(relax.op.astype(made, name))


def arithmetic(operator: Two) -> Row:
    """Computed in the type of the result."""

    def row(node: fx.Node, importer: Any) -> Any:
        return computed(operator, node.meta["val"].dtype, list(node.args[:2]), node, importer)

    return row


def sum_or_difference(operator: Two, first: str = "self", second: str = "other") -> Row:
    def row(node: fx.Node, importer: Any) -> Any:
        given, dtype = arguments(node), node.meta["val"].dtype
        alpha = given["alpha"]

        def scaled(x: Any, y: Any) -> Any:
            if alpha != 1:
                y = importer.block_builder.emit(relax.op.multiply(y, typed(alpha, dtype, importer)))
            return operator(x, y)

        return computed(scaled, dtype, [given[first], given[second]], node, importer)

    return row


def comparison(operator: Two) -> Row:
    """Computed in the type that both operands have in common."""

    def row(node: fx.Node, importer: Any) -> Any:
        dtype = torch.result_type(*map(like, node.args[:2]))
        return computed(operator, dtype, list(node.args[:2]), node, importer)

    return row


def equal(x: Any, y: Any) -> Any:
    """TVM takes for granted that a value equals itself, which NaN does not."""
    return no_nan(x) if x.same_as(y) else relax.op.equal(x, y)


def unequal(x: Any, y: Any) -> Any:
    """As a number: of NaN TVM's own is false, and so is what it makes of the negation of a comparison."""
    return relax.op.less(relax.op.astype(equal(x, y), "int8"), relax.const(1, "int8"))


def no_nan(x: Any) -> Any:
    dtype = str(x.ty.dtype)
    if not dtype.startswith("float"):
        return relax.op.equal(x, x)
    return relax.op.less_equal(x, relax.const(math.inf, dtype))


def like(operand: Any) -> Any:
    """A tensor or a number of the same type."""
    value = operand.meta["val"] if isinstance(operand, fx.Node) else operand
    return 1 if isinstance(value, torch.SymInt) else value


def quotient(node: fx.Node, importer: Any) -> Any:
    """Of whole numbers, rounded."""
    if node.meta["val"].is_floating_point():
        raise ValueError("a rounded quotient of such types has no row")
    down = node.kwargs["rounding_mode"] == "floor"
    return arithmetic(relax.op.floor_divide if down else relax.op.divide)(node, importer)


def where(node: fx.Node, importer: Any) -> Any:
    condition, *pair = node.args
    mask = typed(condition, torch.bool, importer)

    def choice(x: Any, y: Any) -> Any:
        return relax.op.where(mask, x, y)

    return computed(choice, node.meta["val"].dtype, pair, node, importer)


def clamp(node: fx.Node, importer: Any) -> Any:
    """Of whole numbers without infinite bounds, which the importer gives them."""
    given, dtype = arguments(node), node.meta["val"].dtype
    if dtype.is_floating_point and like(given["self"]).dtype == dtype:
        return importer._clamp(node)
    x = typed(given["self"], dtype, importer)
    for bound, operator in (("min", relax.op.maximum), ("max", relax.op.minimum)):
        if given.get(bound) is not None:
            x = importer.block_builder.emit(operator(x, typed(given[bound], dtype, importer)))
    return x


def cat(node: fx.Node, importer: Any) -> Any:
    given = arguments(node)
    shapes = [each.meta["val"].shape for each in given["tensors"]]
    some = [each for each, shape in zip(given["tensors"], shapes, strict=True) if [*map(str, shape)] != ["0"]]
    parts = [typed(part, node.meta["val"].dtype, importer) for part in some or given["tensors"][:1]]
    return importer.block_builder.emit(relax.op.concat(parts, given["dim"]))


def names(operators: dict[str, Two], kinds: tuple[str, ...], row: Callable[[Two], Row]) -> dict[str, Row]:
    return {f"{name}.{kind}": row(operator) for name, operator in operators.items() for kind in kinds}


ARITHMETIC: dict[str, Two] = {
    "mul": relax.op.multiply,
    "div": relax.op.divide,
    "remainder": relax.op.floor_mod,
    "fmod": relax.op.mod,
    "bitwise_left_shift": relax.op.left_shift,
    "__lshift__": relax.op.left_shift,
    "bitwise_right_shift": relax.op.right_shift,
    "__rshift__": relax.op.right_shift,
}
PLAIN: dict[str, Two] = {
    "maximum": relax.op.maximum,
    "minimum": relax.op.minimum,
    "atan2": relax.op.atan2,
    "logaddexp": relax.op.log_add_exp,
}
COMPARISONS: dict[str, Two] = {
    "eq": equal,
    "ne": unequal,
    "lt": relax.op.less,
    "le": relax.op.less_equal,
    "gt": relax.op.greater,
    "ge": relax.op.greater_equal,
}
SUMS: dict[str, Two] = {"add": relax.op.add, "sub": relax.op.subtract}

TYPED: dict[str, Row] = {
    **names(ARITHMETIC, ("Tensor", "Scalar", "Tensor_Scalar"), arithmetic),
    **names(PLAIN, ("default",), arithmetic),
    **names(COMPARISONS, ("Tensor", "Scalar"), comparison),
    **names(SUMS, ("Tensor", "Scalar"), sum_or_difference),
    **dict.fromkeys(
        ("rsub.Tensor", "rsub.Scalar"), sum_or_difference(relax.op.subtract, first="other", second="self")
    ),
    "div.Tensor_mode": quotient,
    "where.self": where,
    **dict.fromkeys(("clamp.default", "clamp.Tensor"), clamp),
    "cat.default": cat,
}
