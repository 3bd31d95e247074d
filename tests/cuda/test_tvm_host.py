"""Nodes of a TVM library on the emulated GPU, called as TVM calls them: through the packed function, by number."""

from __future__ import annotations

import ctypes
import itertools
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv1d, conv2d, pad

from hashcompile.core.packing import pack
from hashcompile.core.rows import RowView
from hashcompile.lower.tvm_nodes import TvmNode, encode
from hashcompile.passes.hashed.weight import HashedWeight
from tests.cuda.emulated import API, COMPILE, HERE, HOST, KERNELS, objects
from tests.cuda.oracle import assert_close, beside_forbidden, numbers
from tests.cuda.packed import CPU, INT, TENSOR, Argument, Packed

pytest.importorskip("tvm", reason="TVM is not installed: pip install 'hashcompile[tvm]'")

from hashcompile.lower.tvm_library import DATA


class Nodes(Packed):
    """A library of nodes. Raises RuntimeError as TVM does."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.library.emulated_error.restype = ctypes.c_char_p
        for name in ("emulated_allocations", "emulated_launches", "emulated_strays"):
            getattr(self.library, name).restype = ctypes.c_size_t

    def call(self, given: Sequence[Argument]) -> bool:
        if not super().call(given):
            raise RuntimeError(self.library.emulated_error().decode())
        return True

    def allocations(self) -> int:
        return int(self.library.emulated_allocations())

    def launches(self) -> int:
        return int(self.library.emulated_launches())


@pytest.fixture
def library(emulated_folder: Path, tmp_path: Path) -> Callable[..., Nodes]:
    """Links a library of nodes, with kernels for all widths but those left out."""

    def made(*nodes: TvmNode, without: Sequence[str] = ()) -> Nodes:
        kinds = [kind for kind in KERNELS if kind not in without]
        linked = objects(emulated_folder, [*kinds, *API, *HOST])
        ours = ["__tvm_ffi_hc_node", *(f"hc_cuda_{kind}" for kind in kinds)]
        (tmp_path / "nodes.bin").write_bytes(encode(nodes))
        (tmp_path / "nodes.S").write_text(
            DATA.format(symbols="\n".join(f"    .quad {each}" for each in ours))
        )
        command = [
            *COMPILE,
            "-shared",
            "-Wl,-Bsymbolic",
            "nodes.S",
            str(HERE / "emulated_ffi.cc"),
            *map(str, linked),
        ]
        path = tmp_path / f"nodes{len(list(tmp_path.iterdir()))}.so"
        subprocess.run([*command, "-o", str(path)], check=True, cwd=tmp_path)
        return Nodes(path)

    return made


class Weight:
    """Codes of (N, K), and what a node says of them."""

    def __init__(self, bits: int, N: int, K: int, group_rows: int = 0, bias: bool = True) -> None:
        rng = np.random.default_rng([bits, N, K])
        indices = rng.integers(0, 2**bits, (N, K), np.uint8)
        tables = -(-N // group_rows) if group_rows else 1
        self.codebook = torch.from_numpy(rng.normal(size=(tables, 2**bits)).astype(np.float32))
        self.scale = torch.from_numpy(rng.uniform(0.5, 2, N).astype(np.float32))
        self.bias = torch.from_numpy(rng.normal(size=N).astype(np.float32)) if bias else None
        self.codes = torch.from_numpy(pack(indices, bits))
        self.attributes: dict[str, Any] = {
            "bits": bits,
            "in_features": K,
            "group_rows": group_rows,
            "compute": 0,
        }
        group = torch.arange(N) // (group_rows or N)
        self.centroids = self.codebook.double()[group[:, None], torch.from_numpy(indices).long()]

    def node(self, operator: str, **attributes: Any) -> TvmNode:
        inputs: list[Any] = [0, self.codes, self.codebook, self.scale]
        if operator != "CodebookEmbedding":
            inputs.append(self.bias)
        return TvmNode(operator, "layer", {**self.attributes, **attributes}, inputs)

    def check(self, y: Tensor, product: Tensor, size: Tensor, shape: tuple[int, ...]) -> None:
        """`shape` lets scale and bias broadcast."""
        bias = 0.0 if self.bias is None else self.bias.double().view(shape)
        assert_close(y, product, size, self.scale.double().view(shape), bias, self.centroids.shape[1])


def empty(*shape: int) -> Tensor:
    return torch.full(shape, float("nan"))


def placed(values: Tensor) -> Tensor:
    return beside_forbidden(values).view(values.shape)


LINEAR = [  # bits, N, K, group_rows, bias, shape of X without K
    *((bits, 37, 45, 0, bits % 2 == 0, (3,)) for bits in range(1, 9)),
    (4, 64, 96, 16, True, (2, 3)),
    (3, 33, 64, 32, True, (70,)),
    (4, 37, 45, 0, True, ()),
    (4, 37, 45, 0, True, (0,)),
    (5, 16, 0, 0, True, (2,)),
]


def test_linear(library: Callable[..., Nodes]) -> None:
    weights = [Weight(bits, N, K, group, bias) for bits, N, K, group, bias, _ in LINEAR]
    nodes = library(*(weight.node("CodebookLinear") for weight in weights))
    for i, (weight, (_, N, K, _, _, batch)) in enumerate(zip(weights, LINEAR, strict=True)):
        x, y = placed(numbers((*batch, K), torch.float32).view(*batch, K)), empty(*batch, N)
        nodes(i, x, y)
        products = x.double() @ weight.centroids.T, x.double().abs() @ weight.centroids.abs().T
        weight.check(y, *products, (N,))


CONV: list[tuple[tuple[int, ...], int, dict[str, Any]]] = [  # X as (B, C, H, W) or (B, C, L), N, attributes
    (
        (2, 3, 9, 7),
        16,
        {"kernel_shape": (3, 3), "strides": (2, 1), "pads": (1, 0, 1, 2), "dilations": (1, 2)},
    ),
    ((1, 16, 5, 6), 40, {"kernel_shape": (3, 2), "pads": (1, 1, 1, 1)}),
    ((3, 8, 4, 4), 33, {"kernel_shape": (1, 1)}),
    ((2, 24, 4, 4), 36, {"kernel_shape": (2, 2), "group": 3}),
    ((1, 12, 5, 5), 12, {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1), "group": 12}),
    ((2, 6, 11), 20, {"kernel_shape": (3,), "strides": (2,), "pads": (2, 1), "dilations": (2,)}),
    ((0, 8, 3, 3), 16, {"kernel_shape": (3, 3)}),
]


def test_conv(library: Callable[..., Nodes]) -> None:
    """In every order of dims."""
    cases = [
        (shape, rows, flags, bits, attributes)
        for (shape, rows, attributes), bits in zip(CONV, itertools.cycle((4, 2, 7)))
        for flags in range(4 if len(shape) == 4 else 1)
    ]
    weights, made = [], []
    for shape, rows, flags, bits, attributes in cases:
        kernel, ones = attributes["kernel_shape"], (1,) * len(attributes["kernel_shape"])
        whole = {"strides": ones, "dilations": ones, "pads": (0,) * (2 * len(ones)), "group": 1, **attributes}
        weights.append(Weight(bits, rows, int(np.prod(kernel)) * shape[1] // whole["group"]))
        made.append(weights[-1].node("CodebookConv", **whole, channels_last=flags))
    nodes = library(*made)
    for i, ((shape, rows, flags, _, _), weight) in enumerate(zip(cases, weights, strict=True)):
        asked, flat = made[i].attributes, len(shape) == 3
        kernel, pads = tuple(asked["kernel_shape"]), asked["pads"]
        x = numbers(shape, torch.float32).view(shape)
        w = weight.centroids.view(rows, *kernel, -1).movedim(-1, 1)
        edges = pads if flat else (pads[1], pads[3], pads[0], pads[2])
        padded, convolve = pad(x.double(), edges), conv1d if flat else conv2d
        rest = (None, asked["strides"], 0, asked["dilations"], asked["group"])
        product, size = convolve(padded, w, *rest), convolve(padded.abs(), w.abs(), *rest)
        given = placed(x.movedim(1, -1).contiguous()) if flags & 1 else placed(x)
        y = empty(*(product.movedim(1, -1).shape if flags & 2 else product.shape))
        nodes(i, given, y)
        got = y.movedim(-1, 1) if flags & 2 else y
        weight.check(got, product, size, (rows, *(1,) * len(kernel)))


def test_embedding(library: Callable[..., Nodes]) -> None:
    """Whole rows to the bit; an id out of range gives NaN."""
    weights = [Weight(bits, 13, 37, bias=False) for bits in (1, 3, 4, 6, 8)]
    nodes = library(*(weight.node("CodebookEmbedding") for weight in weights))
    ids = torch.tensor([[0, 12, -1], [-13, 13, 2**40]])
    for i, weight in enumerate(weights):
        y = empty(2, 3, 37)
        nodes(i, placed(ids), y)
        wanted = weight.centroids.float() * weight.scale[:, None]
        assert torch.equal(y.view(6, 37)[:4], wanted[ids.view(6)[:4]])
        assert bool(y.view(6, 37)[4:].isnan().all())


@pytest.mark.parametrize("scales", [0, 1, 50])
@pytest.mark.parametrize("biased", [False, True])
def test_hashed(library: Callable[..., Nodes], scales: int, biased: bool) -> None:
    rng = np.random.default_rng(scales)
    values, bias = (torch.from_numpy(rng.normal(size=n).astype(np.float32)) for n in (1024, 50))
    scale = torch.from_numpy(rng.uniform(0.5, 2, scales).astype(np.float32)) if scales else None
    code = HashedWeight(RowView((50, 70)), values, 123456789, True, scale)
    inputs: list[Any] = [0, *([] if scale is None else [scale]), values, *([bias] if biased else [])]
    attributes = {"rows": 50, "in_features": 70, "seed": 123456789, "scaled": int(scales > 0)}
    nodes = library(TvmNode("HashedLinear", "layer", attributes, inputs))
    x, y = placed(numbers((5, 70), torch.float32).view(5, 70)), empty(5, 50)
    nodes(0, x, y)
    rows = code.rows().detach().double()
    product, size = x.double() @ rows.T, x.double().abs() @ rows.T.abs()
    assert_close(y, product, size, 1.0, bias.double() if biased else 0.0, 70 + 2)


def test_constants_are_copied_once_to_each_device(library: Callable[..., Nodes]) -> None:
    """Two nodes share all of a weight but the bias."""
    weight = Weight(4, 32, 64)
    other = TvmNode(
        "CodebookLinear", "other", weight.attributes, [0, weight.codes, weight.codebook, weight.scale]
    )
    nodes = library(weight.node("CodebookLinear"), other)
    x, y = numbers((70, 64), torch.float32).view(70, 64), empty(70, 32)  # rows enough for no workspace
    counts = [nodes.allocations()]
    for index, device in ((0, 0), (0, 0), (1, 0), (0, 1), (1, 1)):
        nodes(index, x, y, devices=(device,))
        counts.append(nodes.allocations())
        weight_here = weight.bias.double() if index == 0 and weight.bias is not None else 0.0
        product, size = x.double() @ weight.centroids.T, x.double().abs() @ weight.centroids.abs().T
        assert_close(y, product, size, weight.scale.double(), weight_here, 64)
    assert [b - a for a, b in itertools.pairwise(counts)] == [4, 0, 0, 4, 0]


def test_all_happens_in_the_stream_of_the_device_of_the_arguments(library: Callable[..., Nodes]) -> None:
    """With constants and a workspace; whoever calls has the current device that was there before."""
    weight = Weight(4, 32, 2048)
    nodes = library(weight.node("CodebookLinear"))
    x = numbers((1, 2048), torch.float32).view(1, 2048)
    strays, launches = nodes.library.emulated_strays(), nodes.launches()
    for device in (1, 0, 1):
        nodes(0, x, empty(1, 32), devices=(device,))
        assert nodes.library.emulated_current() == 0
    with pytest.raises(RuntimeError, match="X has shape"):
        nodes(0, x[:, 1:].contiguous(), empty(1, 32), devices=(1,))
    assert nodes.library.emulated_current() == 0
    assert nodes.library.emulated_strays() == strays and nodes.launches() > launches


def test_without_memory_for_a_workspace_it_computes_in_fewer_parts(library: Callable[..., Nodes]) -> None:
    weight = Weight(4, 32, 2048)
    nodes = library(weight.node("CodebookLinear"))
    x, whole, scarce = numbers((1, 2048), torch.float32).view(1, 2048), empty(1, 32), empty(1, 32)
    before = nodes.allocations()
    nodes(0, x, whole)
    assert nodes.allocations() == before + 5, "one of them is the workspace"
    nodes.library.emulated_limit(ctypes.c_size_t(0))
    nodes(0, x, scarce)
    product, size = x.double() @ weight.centroids.T, x.double().abs() @ weight.centroids.abs().T
    for y in (whole, scarce):
        weight.check(y, product, size, (32,))


def test_no_memory_for_constants_is_an_error_and_the_next_call_may_succeed(
    library: Callable[..., Nodes],
) -> None:
    nodes = library(Weight(4, 32, 64).node("CodebookLinear"))
    x, y = numbers((2, 64), torch.float32).view(2, 64), empty(2, 32)
    nodes.library.emulated_limit(ctypes.c_size_t(0))
    with pytest.raises(RuntimeError, match=r"CodebookLinear 'layer': memory for constants: out of memory"):
        nodes(0, x, y)
    nodes.library.emulated_limit(ctypes.c_size_t(2**63))
    nodes(0, x, y)
    assert not y.isnan().any()


X, Y, IDS = torch.zeros(2, 64), torch.zeros(2, 32), torch.zeros(2, dtype=torch.int64)
REFUSED: dict[str, tuple[tuple[Tensor, ...], dict[str, Any]]] = {
    r"X has shape \(2, 63\); wanted \(\.\.\., 64\)": ((torch.zeros(2, 63), Y), {}),
    r"X has shape \(\)": ((torch.zeros(()), Y), {}),
    r"output 0 was given shape \(3, 32\); it has \(2, 32\)": ((X, torch.zeros(3, 32)), {}),
    r"output 0 was given shape \(2, 32\); it has \(2, 32\), of floats": ((X, Y.half()), {}),
    "input 0 has element type 7; wanted 1": ((torch.zeros(2, 64, dtype=torch.int64), Y), {}),
    "input 0 has element type 0; wanted 1": ((X.half(), Y), {}),
    "argument 0 is not dense": ((torch.zeros(64, 2).T, Y), {}),
    "argument 0 lies on device type 1; wanted a CUDA device": ((X, Y), {"kind": CPU}),
    "argument 1 lies on device 1, argument 0 on device 0": ((X, Y), {"devices": (0, 1)}),
    "the device of the arguments: invalid device ordinal": ((X, Y), {"devices": (7,)}),
    "a call has 1 arguments; wanted more": ((X,), {}),
    "a call has 0 arguments; wanted more": ((), {}),
}


def test_calls_that_do_not_fit_are_refused(library: Callable[..., Nodes]) -> None:
    nodes = library(Weight(4, 32, 64).node("CodebookLinear"), Weight(4, 9, 4).node("CodebookEmbedding"))
    before = nodes.launches()
    for message, (tensors, options) in REFUSED.items():
        with pytest.raises(RuntimeError, match=rf"RuntimeError: CodebookLinear 'layer': {message}"):
            nodes(0, *tensors, **options)
    with pytest.raises(RuntimeError, match="input 0 has element type 1; wanted 7"):
        nodes(1, X, torch.zeros(2, 64, 4))
    with pytest.raises(RuntimeError, match="there are 2 nodes"):
        nodes(2, X, Y)
    with pytest.raises(RuntimeError, match="the first argument is the node's number"):
        nodes.call([Argument(TENSOR, 0, 0)])
    with pytest.raises(RuntimeError, match="argument 0 is no tensor"):
        nodes.call([Argument(INT, 0, 0), Argument(INT, 0, 3), Argument(INT, 0, 3)])
    assert nodes.launches() == before
    nodes(0, X, Y)
    assert nodes.launches() > before, "what was refused did no harm"


IMAGE = {"kernel_shape": (1, 1), "strides": (1, 1), "dilations": (1, 1), "pads": (0, 0, 0, 0)}


def test_nodes_that_no_gpu_computes_are_refused(library: Callable[..., Nodes]) -> None:
    weight = Weight(4, 32, 64)
    inputs = weight.node("CodebookLinear").inputs
    wrong = {
        "compute is 1; a GPU computes in float": weight.node("CodebookLinear", compute=1),
        "a GPU's kernel takes no residual and no activation": weight.node(
            "CodebookLinear", activation="relu"
        ),
        "takes no residual": TvmNode("CodebookLinear", "layer", weight.attributes, [*inputs, 1]),
        "bits is 9": weight.node("CodebookLinear", bits=9),
        "codes have shape": weight.node("CodebookLinear", in_features=65),
        "bits is 32; wanted 1 to 8": TvmNode(
            "CodebookLinear",
            "layer",
            {**weight.attributes, "bits": 32, "in_features": 2},
            [0, torch.zeros(1, 2, 1, 2, 16, 4, dtype=torch.uint8), torch.zeros(0, 0), weight.scale],
        ),
        "there is no kernel of that name": weight.node("Norm"),
        "kernel height is 0": weight.node("CodebookConv", **{**IMAGE, "kernel_shape": (0, 1)}),
        "channels_last is 4": weight.node("CodebookConv", **IMAGE, channels_last=4),
        "attribute kernel_shape is missing": weight.node("CodebookConv"),
        r"X has shape \(2, 64\); wanted \(B, 64, H, W\)": weight.node("CodebookConv", **IMAGE),
        "attribute scaled is missing": weight.node("HashedLinear"),
    }
    nodes = library(*wrong.values())
    for i, (message, node) in enumerate(wrong.items()):
        x = torch.zeros(2, int(node.attributes["in_features"]))  # type: ignore[arg-type]
        for _ in range(2):  # it stays so
            with pytest.raises(RuntimeError, match=message):
                nodes(i, x, Y)


def test_a_width_that_was_not_linked_is_an_error(library: Callable[..., Nodes]) -> None:
    nodes = library(Weight(4, 32, 64).node("CodebookLinear"), without=("4_bits", "hashes"))
    with pytest.raises(RuntimeError, match="this library has no kernels for weights of 4 bits"):
        nodes(0, X, Y)
