"""What follows the product of a layer, computed by the layer's own operator while its outputs are still at hand.

Given:  %y = CodebookLinear(%x, ..., %b);  %s = aten.add(%y, %r);  %z = aten.gelu(%s)
Result: %z = CodebookLinear[activation=gelu](%x, ..., %b, %r)

A residual comes before the activation, and has the shape of the output; of a layer without a bias the place of the bias
is left empty. Whoever else reads %y or %s keeps them, and nothing is fused then.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace

from torch import fx

from hashcompile.core.onnx_op import Attribute, OnnxOp
from hashcompile.lower.pointwise import Activation, activation_of, addends_of

OPERATORS = ("CodebookLinear", "CodebookConv")
BODIES = {  # Y from total, in standard operators
    Activation.RELU: "    Y = Relu(total)",
    Activation.CLIP: """\
    least = Constant<value_float: float = @low>()
    most = Constant<value_float: float = @high>()
    Y = Clip(total, least, most)""",
    Activation.GELU: "    Y = Gelu(total)",
    Activation.GELU_TANH: '    Y = Gelu<approximate = "tanh">(total)',
    Activation.SILU: "    weight = Sigmoid(total)\n    Y = Mul(total, weight)",
    Activation.HARD_SWISH: "    Y = HardSwish(total)",
}


@dataclass(frozen=True)
class Epilogue:
    """activation(product + residual); `output` is the last node that it replaces."""

    output: fx.Node
    activation: Activation = Activation.NONE
    low: float = 0.0  # bounds of CLIP
    high: float = 0.0
    residual: fx.Node | None = None


def find_epilogue(layer: fx.Node, op: OnnxOp, *, taken: Container[fx.Node]) -> Epilogue:
    """What `op`, which computes `layer`, can do beside; nodes that are `taken` stay."""
    found = Epilogue(layer)
    while op.operator in OPERATORS and found.activation is Activation.NONE and len(found.output.users) == 1:
        (user,) = found.output.users
        if user in taken:
            break
        if (activation := activation_of(user)) is not None and user.args[0] is found.output:
            which, low, high = activation
            return replace(found, output=user, activation=which, low=low, high=high)
        addends = addends_of(user)
        if addends is None or found.residual is not None or found.output not in addends:
            break
        other = addends[1] if addends[0] is found.output else addends[0]
        if other is found.output:
            break
        found = replace(found, output=user, residual=other)
    return found


def with_epilogue(op: OnnxOp, epilogue: Epilogue) -> OnnxOp:
    """`op`, and what follows it."""
    if epilogue.activation is Activation.NONE and epilogue.residual is None:
        return op
    name, attributes = op.overload, dict[str, Attribute](op.attributes)
    if epilogue.residual is not None:
        name += "_residual"
    if epilogue.activation is not Activation.NONE:
        activation = epilogue.activation.name.lower()
        name += f"_{activation}"
        attributes |= {"activation": activation, "low": epilogue.low, "high": epilogue.high}
    body = continued(op.body, epilogue) if op.body else ""
    return replace(op, overload=name, attributes=attributes, body=body)


def continued(body: str, epilogue: Epilogue) -> str:
    """`body`, and what follows it."""
    body, total = body.replace("    Y = ", "    total = "), ""
    if epilogue.residual is not None:
        empty = "" if ", bias" in body.split(") => (Y)", 1)[0] else ", bias"
        body = body.replace(") => (Y)", f"{empty}, residual) => (Y)", 1).replace(
            "    total = ", "    plain = "
        )
        total = "    total = Add(plain, residual)\n"
    if epilogue.activation is Activation.NONE:
        total = total.replace("total = ", "Y = ")
    else:
        body = body.replace("compute", "compute, activation, low, high", 1)
        total += BODIES[epilogue.activation] + "\n"
    return body.rstrip().removesuffix("}") + total + "}"
