"""Weights as rows: row n is all that output channel n reads, and the way back is exact."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv_transpose2d

from hashcompile.core.rows import RowView

KERNELS = [(), (3,), (2, 3), (2, 1, 3)]


@pytest.mark.parametrize("kernel", KERNELS)
def test_rows_of_linear_and_conv(kernel: tuple[int, ...]) -> None:
    weight = torch.randn(6, 4, *kernel)
    view = RowView(tuple(weight.shape))
    rows = view.rows(weight)
    assert rows.shape == view.size == (6, weight.numel() // 6)
    for n in range(6):
        assert torch.equal(rows[n], weight[n].flatten())
    assert torch.equal(view.weight(rows), weight)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.sampled_from(KERNELS[1:]))
def test_transposed_rows_invert(groups: int, inputs: int, outputs: int, kernel: tuple[int, ...]) -> None:
    weight = torch.arange(groups * inputs * outputs * torch.Size(kernel).numel(), dtype=torch.float32)
    weight = weight.reshape(groups * inputs, outputs, *kernel)
    view = RowView(tuple(weight.shape), groups)
    rows = view.rows(weight)
    assert rows.shape == view.size == (groups * outputs, inputs * torch.Size(kernel).numel())
    assert torch.equal(view.weight(rows), weight)
    assert torch.equal(view.rows(view.weight(rows)), rows)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_a_transposed_row_is_an_output_channel(groups: int) -> None:
    """Doubling row n doubles channel n of a real transposed convolution, and leaves the others bit for bit."""
    channels, out = 2 * groups, 3
    weight = torch.randn(channels, out, 3, 2)
    x = torch.randn(2, channels, 5, 4)
    view = RowView(tuple(weight.shape), groups)
    rows = view.rows(weight)
    plain = conv_transpose2d(x, weight, stride=2, groups=groups)
    assert plain.shape[1] == view.size[0]
    for n in range(view.size[0]):
        changed = rows.clone()
        changed[n] *= 2
        wanted = plain.clone()
        wanted[:, n] *= 2  # a power of two: exact
        assert torch.equal(conv_transpose2d(x, view.weight(changed), stride=2, groups=groups), wanted)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_row_holds_input_channels_then_taps(groups: int) -> None:
    weight = torch.randn(2 * groups, 3, 4)
    view = RowView(tuple(weight.shape), groups)
    for n, row in enumerate(view.rows(weight)):
        g, o = divmod(n, 3)
        assert torch.equal(row, weight[2 * g : 2 * g + 2, o].flatten())
