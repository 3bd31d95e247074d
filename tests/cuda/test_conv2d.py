"""Convolutions on codebook weights, as the emulated GPU runs them, against PyTorch's in float64."""

from typing import Any, NamedTuple

import pytest
import torch
from torch.nn.functional import conv2d, pad

from hashcompile_runtime.cuda import CudaConv
from tests.cuda.oracle import assert_close, beside_forbidden, call, layer, numbers


class Case(NamedTuple):
    x: tuple[int, int, int, int]
    rows: int
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1


CASES = {
    "3x3": Case((2, 16, 7, 6), 40, (3, 3), pads=(1, 1, 1, 1)),
    "1x1": Case((3, 8, 5, 5), 33, (1, 1)),
    "first layer": Case((2, 3, 9, 9), 16, (3, 3), (2, 2), (1, 1, 1, 1)),
    "strides, dilations, uneven pads": Case((1, 8, 11, 10), 32, (3, 2), (2, 1), (0, 2, 1, 0), (2, 3)),
    "groups of whole pairs": Case((1, 32, 4, 4), 64, (3, 3), pads=(1, 1, 1, 1), groups=2),
    "groups within a pair": Case((2, 24, 4, 4), 36, (2, 2), groups=3),
    "depthwise": Case((1, 12, 5, 5), 12, (3, 3), pads=(1, 1, 1, 1), groups=12),
    "padding alone": Case((1, 8, 1, 1), 8, (3, 3), (4, 4), (5, 5, 5, 5)),
}


def run(kernels: Any, case: Case, weight: Any, x: torch.Tensor, channels_last: bool) -> torch.Tensor:
    given = (
        beside_forbidden(x.permute(0, 2, 3, 1)).view(*(x.shape[i] for i in (0, 2, 3, 1))).permute(0, 3, 1, 2)
    )
    given = given if channels_last else beside_forbidden(x).view(x.shape)
    (top, left, bottom, right), (kh, kw), (dh, dw) = case.pads, case.kernel, case.dilations
    height = (x.shape[2] + top + bottom - dh * (kh - 1) - 1) // case.strides[0] + 1
    width = (x.shape[3] + left + right - dw * (kw - 1) - 1) // case.strides[1] + 1
    y = torch.full((len(x), case.rows, height, width), float("nan"), dtype=x.dtype)
    y = y.to(memory_format=torch.channels_last) if channels_last else y
    taken, _kept = call(given, y, kernels.workspace(len(x) * height * width, case.rows))
    conv = x.shape, case.kernel, case.strides, case.pads, case.dilations, case.groups
    kernels.conv2d(weight.native(), taken, CudaConv(*conv, given.stride(), y.stride()))
    return y


def check(y: torch.Tensor, case: Case, weight: Any, x: torch.Tensor) -> None:
    rows = weight.centroids(x.dtype)  # (N, kh * kw * C)
    w = rows.view(case.rows, *case.kernel, -1).permute(0, 3, 1, 2)
    top, left, bottom, right = case.pads
    padded = pad(x.double(), (left, right, top, bottom))
    rest: Any = (None, case.strides, 0, case.dilations, case.groups)
    product, size = conv2d(padded, w, *rest), conv2d(padded.abs(), w.abs(), *rest)
    scale, bias = (each.double()[:, None, None] for each in (weight.scale, weight.bias))
    assert_close(y, product, size, scale, bias, rows.shape[1])


@pytest.mark.parametrize("channels_last", [True, False], ids=("channels last", "channels first"))
@pytest.mark.parametrize(
    ("bits", "dtype"),
    [(4, torch.float32), (3, torch.float16), (8, torch.float16), (4, torch.bfloat16)],
    ids=str,
)
@pytest.mark.parametrize("name", CASES)
def test_against_float64(emulated, name, bits, dtype, channels_last):
    case = CASES[name]
    columns = case.kernel[0] * case.kernel[1] * case.x[1] // case.groups
    weight, x = layer(bits, case.rows, columns), numbers(case.x, dtype).view(case.x)
    check(run(emulated, case, weight, x, channels_last), case, weight, x)


def test_split_k(emulated):
    """Few windows over many channels: K is split, and a second kernel joins the parts."""
    case = Case((1, 64, 3, 3), 32, (3, 3), pads=(1, 1, 1, 1))
    weight, x = layer(4, 32, 576), numbers(case.x, torch.float16).view(case.x)
    before = emulated.launches()
    check(run(emulated, case, weight, x, channels_last=True), case, weight, x)
    assert emulated.launches() == before + 2


def test_no_images(emulated):
    case = Case((0, 8, 3, 3), 16, (3, 3))
    y = run(emulated, case, layer(4, 16, 72), torch.empty(case.x), channels_last=False)
    assert y.shape == (0, 16, 1, 1)
