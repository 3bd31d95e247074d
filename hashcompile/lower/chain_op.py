"""A chain as one ONNX node: `com.hashcompile::Chain`, and its meaning in standard operators.

Inputs: the chain's own, then codes, codebook, scale and bias of each convolution. A tensor is a number: inputs first,
then the output of every step. The attributes say all that an executor needs; the body says the same in fp32:

    activations  inputs that are activations
    tensors      (scale, zero) of each tensor; see `hashcompile.core.rounding.Range`
    outputs      the tensors that leave
    steps        FIELDS of each step
    bounds       (low, high) of each step's activation
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from hashcompile.core.layers import Window
from hashcompile.core.onnx_op import DOMAIN, VERSION, Attribute, OnnxOp
from hashcompile.core.rounding import MEASURED, Range
from hashcompile.lower.pointwise import Activation
from hashcompile.lower.steps import Chain, Kind, Step, shape_of
from hashcompile.lower.subsample import END, Subsample

OPERATOR = "Chain"
GEOMETRY = (
    *("kernel_h", "kernel_w", "stride_h", "stride_w", "dilation_h", "dilation_w"),
    *("top", "left", "bottom", "right"),
)
FIELDS = (
    *("kind", "input", "other", "output", "weight"),
    *GEOMETRY,
    *("groups", "activation", "flag", "bits", "group_rows", "in_features"),
    *("channels_before", "channels_after"),
)
NONE = -1  # of `other` and `weight`


class ChainOp(nn.Module):
    """The node to the exporter: named, typed and shaped, never executed. Returns one value for each output."""

    def __init__(self, chain: Chain, ranges: Mapping[str, Range], overload: str) -> None:
        super().__init__()
        self.chain = chain
        self.op = OnnxOp(OPERATOR, overload, dict, attributes(chain, ranges), body(chain), tuple)

    def forward(self, *inputs: Tensor) -> Any:
        count = len(self.chain.inputs)
        shapes = [tuple(x.shape) for x in inputs[:count]]
        number = {node: i for i, node in enumerate(self.chain.tensors)}
        for step in self.chain.steps:
            shapes.append(shape_of(step, shapes[number[step.source]]))
        wanted = [shapes[number[node]] for node in self.chain.outputs]
        return torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{OPERATOR}",
            inputs,
            self.op.exported(),
            dtypes=[torch.float32] * len(wanted),
            shapes=wanted,
            version=VERSION,
        )


def overload(position: int) -> str:
    """Every chain has a body of its own."""
    return f"chain_{position}"


def attributes(chain: Chain, ranges: Mapping[str, Range]) -> dict[str, Any]:
    number = {node: i for i, node in enumerate(chain.tensors)}
    held = [ranges.get(node.name, MEASURED) if node in chain.read else MEASURED for node in chain.tensors]
    return {
        "activations": len(chain.inputs),
        "tensors": tuple(float(value) for pair in held for value in pair),
        "outputs": tuple(number[node] for node in chain.outputs),
        "steps": tuple(value for fields in records(chain, number) for value in fields),
        "bounds": tuple(bound for step in chain.steps for bound in (step.low, step.high)),
    }


def records(chain: Chain, number: Mapping[fx.Node, int]) -> Iterator[list[int]]:
    """The fields of every step."""
    weights = 0
    for step in chain.steps:
        known: dict[str, Any] = {
            "kind": step.kind,
            "input": number[step.source],
            "other": NONE if step.other is None else number[step.other],
            "output": number[step.output],
            "weight": NONE,
            "activation": step.activation,
            "flag": step.includes_padding,
            **window_fields(step.window),
        }
        if step.subsample is not None:
            known |= {"channels_before": step.subsample.before, "channels_after": step.subsample.after}
        if step.op is not None:
            known |= {name: step.op.attributes[name] for name in ("bits", "group_rows", "in_features")}
            known["weight"] = weights
            weights += 1
        yield [int(known.get(name, 0)) for name in FIELDS]


def window_fields(window: Window | None) -> dict[str, int]:
    """A window of one dimension is the only row of one of two."""
    if window is None:
        window = Window((1, 1), (1, 1), (0, 0), (0, 0), (1, 1), 1)
    flat = len(window.kernel) == 1
    kernel, stride, dilation = (
        (1, *values) if flat else values for values in (window.kernel, window.stride, window.dilation)
    )
    before, after = ((0, *values) if flat else values for values in (window.before, window.after))
    values = (*kernel, *stride, *dilation, *before, *after)
    return dict(zip(GEOMETRY, values, strict=True)) | {"groups": window.groups}


def constants(op: OnnxOp, bias: Tensor | None) -> dict[str, Tensor]:
    """codes, codebook, scale and bias of a convolution; zeros where it has no bias."""
    held = dict(op.constants())
    return held | {"bias": torch.zeros_like(held["scale"]) if bias is None else bias}


def called(op: OnnxOp) -> OnnxOp:
    """A convolution as the body calls it: a name of its own, as ONNX Runtime finds no overload inside a function."""
    name = f"{op.operator}_{op.overload}"
    return replace(op, operator=name, overload="", body=op.body.replace(f"{op.operator}<", f"{name}<", 1))


def body(chain: Chain) -> str:
    """The steps in standard operators, one after another."""
    number = {node: i for i, node in enumerate(chain.tensors)}
    weights = [f"codes{i}, codebook{i}, scale{i}, bias{i}" for i in range(len(chain.convolutions))]
    inputs = ", ".join([*(f"t{i}" for i in range(len(chain.inputs))), *weights])
    outputs = ", ".join(f"t{number[node]}" for node in chain.outputs)
    lines: list[str] = []
    unused = iter(weights)
    for step in chain.steps:
        lines += statements(step, number, next(unused) if step.kind is Kind.CONV else "")
    text = "\n    ".join(lines)
    return f"\n{OPERATOR}<activations, tensors, outputs, steps, bounds>({inputs}) => ({outputs})\n{{\n    {text}\n}}"


def statements(step: Step, number: Mapping[fx.Node, int], weight: str) -> Iterator[str]:
    """One step: what it computes, what is added, what is applied; the last value is named after its tensor."""
    out = f"t{number[step.output]}"
    source = f"t{number[step.source]}"
    added = step.other is not None and step.kind is Kind.CONV
    active = step.activation is not Activation.NONE
    first = f"{out}_of" if added or active else out
    if step.subsample is not None:
        yield from subsampled(step.subsample, source, first)
    else:
        yield f"{first} = {product(step, source, number, weight)}"
    if added:
        assert step.other is not None
        second = f"{out}_sum" if active else out
        yield f"{second} = Add({first}, t{number[step.other]})"
        first = second
    if active:
        yield from activated(step, first, out)


def subsampled(of: Subsample, x: str, out: str) -> Iterator[str]:
    none = (0,) * len(of.stride)
    constants = {
        "starts": none,
        "ends": (END,) * len(of.stride),
        "axes": tuple(range(2, 2 + len(of.stride))),
        "steps": of.stride,
        "pads": (0, of.before, *none, 0, of.after, *none),
    }
    for name, values in constants.items():
        yield f"{out}_{name} = Constant<{listed({'value_ints': values})}>()"
    yield f"{out}_every = Slice({x}, {out}_starts, {out}_ends, {out}_axes, {out}_steps)"
    yield f"{out} = Pad({out}_every, {out}_pads)"


def product(step: Step, source: str, number: Mapping[fx.Node, int], weight: str) -> str:
    match step.kind:
        case Kind.CONV:
            assert step.op is not None
            op = called(step.op)
            read = weight if step.bias is not None else weight.rpartition(",")[0]
            return f"{DOMAIN}.{op.operator}<{listed(op.attributes)}>({source}, {read})"
        case Kind.ADD:
            assert step.other is not None
            return f"Add({source}, t{number[step.other]})"
        case Kind.GLOBAL_AVERAGE:
            return f"GlobalAveragePool({source})"
    window = step.window
    assert window is not None
    geometry: dict[str, Attribute] = {
        "kernel_shape": window.kernel,
        "strides": window.stride,
        "pads": (*window.before, *window.after),
    }
    if step.kind is Kind.MAX_POOL:
        return f"MaxPool<{listed(geometry | {'dilations': window.dilation})}>({source})"
    return f"AveragePool<{listed(geometry | {'count_include_pad': int(step.includes_padding)})}>({source})"


def listed(attributes: Mapping[str, Attribute]) -> str:
    texts = {
        name: f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
        for name, value in attributes.items()
    }
    return ", ".join(f"{name} = {text}" for name, text in texts.items())


def activated(step: Step, x: str, out: str) -> Iterator[str]:
    match step.activation:
        case Activation.RELU:
            yield f"{out} = Relu({x})"
        case Activation.CLIP:
            yield f"{out}_low = Constant<value_float = {float(step.low)!r}>()"
            yield f"{out}_high = Constant<value_float = {float(step.high)!r}>()"
            yield f"{out} = Clip({x}, {out}_low, {out}_high)"
        case Activation.GELU:
            yield f"{out} = Gelu({x})"
        case Activation.GELU_TANH:
            yield f'{out} = Gelu<approximate = "tanh">({x})'
        case Activation.SILU:
            yield f"{out}_gate = Sigmoid({x})"
            yield f"{out} = Mul({x}, {out}_gate)"
        case Activation.HARD_SWISH:
            yield f"{out} = HardSwish({x})"
