"""What the compiler must produce, written a second time: slowly, from the documentation alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import hashcompile as hc
from hashcompile.core.encoded import encoded_weights

EPS = float(np.finfo(np.float32).eps)
DOMAIN = "com.hashcompile"
FIELDS = (  # of a step of a chain
    "kind",
    "input",
    "other",
    "output",
    "weight",
    "kernel_h",
    "kernel_w",
    "stride_h",
    "stride_w",
    "dilation_h",
    "dilation_w",
    "top",
    "left",
    "bottom",
    "right",
    "groups",
    "activation",
    "flag",
    "bits",
    "group_rows",
    "in_features",
    "channels_before",
    "channels_after",
)


def planes(bits: int) -> list[tuple[int, int]]:
    """(width, shift) of the planes of an index: 8, 4, 2, 1 bits, widest first, the widest holding the lowest bits."""
    cuts, shift = [], 0
    for width in (8, 4, 2, 1):
        if bits & width:
            cuts.append((width, shift))
            shift += width
    return cuts


def packed(indices: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """T16 codes, (row_pairs, k_blocks, lines, 2, 16, 4), one index and one plane at a time."""
    rows, columns = indices.shape
    period = 32 // planes(bits)[-1][0]
    lines = period * bits // 32
    codes = np.zeros((-(-rows // 32), -(-columns // period), lines, 2, 16, 4), np.uint8)
    for row in range(rows):
        for k in range(columns):
            block, within = divmod(k, period)
            first = 0
            for width, shift in planes(bits):
                line, rest = divmod(within, 32 // width)  # within = line * (32 / w) + 4 * s + kk
                field, byte = divmod(rest, 4)
                part = (int(indices[row, k]) >> shift) & (2**width - 1)
                place = (row // 32, block, first + line, row % 32 // 16, row % 16, byte)
                codes[place] |= part << (width * field)
                first += period * width // 32
    return codes


def unpacked(codes: npt.NDArray[np.uint8], bits: int, rows: int, columns: int) -> npt.NDArray[np.uint8]:
    """Inverse of `packed`, from where the formula puts each part of an index."""
    places = packed_places(bits, rows, columns)
    indices = np.zeros((rows, columns), np.uint8)
    for place, (width, shift, field) in places:
        indices |= ((codes[place] >> (width * field)) & (2**width - 1)) << shift
    return indices


def packed_places(bits: int, rows: int, columns: int) -> list[tuple[Any, tuple[int, int, Any]]]:
    """For each plane: the place in the codes of every index, and (width, shift, sub-field)."""
    period = 32 // planes(bits)[-1][0]
    row, k = np.arange(rows)[:, None], np.arange(columns)[None]
    found, first = [], 0
    for width, shift in planes(bits):
        within = k % period
        line, rest = within // (32 // width), within % (32 // width)
        place = (row // 32, k // period, first + line, row % 32 // 16, row % 16, rest % 4)
        found.append((place, (width, shift, (rest // 4).astype(np.uint8))))
        first += period * width // 32
    return found


def decoded(compiled: hc.CompiledModel, parameter: str) -> Tensor:
    """The dense weight behind a code, in float64: table entry times row scale, rows laid as the operator has them."""
    code: Any = encoded_weights(compiled.graph_module)[parameter]
    layer = compiled.plan[parameter].layer
    table, scale = code.codebook.detach().double(), code.scale.detach().double()
    rows = len(code.indices)
    group = torch.arange(rows) // code.group_rows if code.group_rows else torch.zeros(rows, dtype=torch.long)
    values = table[group[:, None], code.indices.long()] * scale[:, None]
    if layer.kind != "conv_transpose":
        return values.reshape(layer.view.shape)
    groups = layer.view.transposed_groups
    channels, out, *kernel = layer.view.shape  # (C, N / groups, *kernel)
    per_group = channels // groups
    weight = torch.empty(layer.view.shape, dtype=torch.float64)
    for row in range(rows):
        for c in range(per_group):  # output channel `row` reads the input channels of its own group
            taps = values[row].reshape(per_group, *kernel)[c]
            weight[row // out * per_group + c, row % out] = taps
    return weight


def restored(model: nn.Module, compiled: hc.CompiledModel) -> nn.Module:
    """The user's own module in float64, with the weights that the compiled graph stands for."""
    codes = encoded_weights(compiled.graph_module)
    held = dict(compiled.graph_module.named_parameters(remove_duplicate=False))
    held |= dict(compiled.graph_module.named_buffers(remove_duplicate=False))
    twin = copy.deepcopy(model).double().eval()
    state = twin.state_dict()
    aliases: dict[int, str] = {}  # a tied weight has one name in the graph
    for name, tensor in state.items():
        if name in codes:
            aliases[tensor.data_ptr()] = name
    for name, tensor in state.items():
        source = aliases.get(tensor.data_ptr(), name)
        if source in codes:
            tensor.copy_(decoded(compiled, source))
        elif name in held:  # biases and means of batch norms absorb what codes shift
            tensor.copy_(held[name])
    return twin


def doubled(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.double() if x.is_floating_point() else x for x in inputs)


def relative(got: Any, wanted: Any) -> float:
    """||got - wanted|| / ||wanted||."""
    got, wanted = (torch.as_tensor(y).detach().double() for y in (got, wanted))
    assert got.shape == wanted.shape
    return float((got - wanted).norm() / wanted.norm())


def rounding(compiled: hc.CompiledModel) -> float:
    """How far fp32 outputs may be from exact ones, relative to their norm.

    A sum of K products is off by at most K eps of the sum of their magnitudes in the worst case, and with random signs
    by sqrt(K) eps of it; that sum is about sqrt(K) times the result. So K eps a layer, and layers add up. Decoding,
    bias, norm and activation are a few roundings more, softmax and layer norm some tens: 32 in all.
    """
    return EPS * sum(decision.layer.view.size[1] + 32 for decision in compiled.plan)


class Node(NamedTuple):
    """One of our nodes in an ONNX file, its constants as arrays."""

    operator: str
    attributes: dict[str, Any]
    constants: dict[str, npt.NDArray[Any]]  # codes, codebook, scale

    def values(self) -> npt.NDArray[np.float32]:
        """Table entries of all weights, without the row scale: (N, K) in the order of the file."""
        bits, columns, per = (self.attributes[key] for key in ("bits", "in_features", "group_rows"))
        rows = len(self.constants["scale"])
        index = unpacked(self.constants["codes"], bits, rows, columns)
        group = np.arange(rows) // per if per else np.zeros(rows, np.int64)
        return self.constants["codebook"][group[:, None], index]


def our_nodes(path: Any) -> list[Node]:
    """Every node that reads one weight, and every convolution of a chain."""
    model = onnx.load(str(path))
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found: list[Node] = []
    for node in model.graph.node:
        if node.domain != DOMAIN or node.op_type in ("Attention", "Norm"):  # those hold no codes
            continue
        given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        if node.op_type == "Chain":
            for values in np.reshape(given["steps"], (-1, len(FIELDS))).tolist():
                step = dict(zip(FIELDS, values, strict=True))
                if (weight := step["weight"]) >= 0:
                    names = node.input[given["activations"] + 4 * weight :][:3]
                    parts = dict(
                        zip(("codes", "codebook", "scale"), (held[name] for name in names), strict=True)
                    )
                    attributes = {"in_features": step["in_features"], "compute": 1}
                    attributes |= {name: step[name] for name in ("bits", "group_rows")}
                    found.append(Node("CodebookConv", attributes, parts))
            continue
        for ending in ("", "_2") if node.op_type == "FeedForward" else ("",):
            first = (
                5
                if ending
                else next(i for i, name in enumerate(node.input) if name.rstrip("_").endswith(".codes"))
            )
            names = node.input[first : first + 3]
            parts = dict(zip(("codes", "codebook", "scale"), (held[name] for name in names), strict=True))
            own = {name.removesuffix("_2"): value for name, value in given.items() if name.endswith("_2")}
            found.append(Node(node.op_type, given | own if ending else given, parts))
    return found


def run(session: ort.InferenceSession, inputs: tuple[Tensor, ...]) -> Any:
    feeds = {entry.name: x.numpy() for entry, x in zip(session.get_inputs(), inputs, strict=True)}
    (output,) = session.run(None, feeds)
    return output


def stock(path: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
