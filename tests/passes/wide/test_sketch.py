"""Sketches: what distances tell of scores, and limits that keep what they were made for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hashcompile.passes.wide.sketch import ALWAYS, Geometry, Index, hamming, packed, sketch, unpacked


def layer(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of many lengths and biases, and inputs that do not lie around zero."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(300, 40, generator=draw) * (0.2 + torch.rand(300, 1, generator=draw) * 3)
    bias = torch.randn(300, generator=draw) * 5
    inputs = torch.randn(200, 40, generator=draw) + torch.randn(40, generator=draw)
    return rows, bias, inputs


def test_packing_is_reversible() -> None:
    bits = torch.rand(13, 40) < 0.5
    codes = packed(bits)
    assert codes.shape == (5, 13) and codes.dtype == torch.uint8
    assert torch.equal(unpacked(codes), bits)
    assert int(codes[2, 7]) == sum(2**j for j in range(8) if bits[7, 16 + j])


def test_distances_are_counted() -> None:
    a, b = torch.rand(5, 72) < 0.5, torch.rand(7, 72) < 0.5
    assert torch.equal(hamming(a, b), (a[:, None] != b).sum(2))


def test_the_order_of_classes_is_that_of_the_formula() -> None:
    """score - (w - mean w)(x - m) - c is the same for all rows of an input."""
    rows, bias, inputs = layer()
    geometry = Geometry.of(rows, bias, inputs)
    whole = inputs.double() @ rows.double().T + bias.double()
    told = (inputs.double() - geometry.centre) @ geometry.rows.T + geometry.offset
    left = whole - told
    torch.testing.assert_close(left, left[:, :1].expand_as(left))


@pytest.mark.parametrize("seed", range(3))
def test_many_bits_tell_the_angle(seed: int) -> None:
    """A distance is a binomial: with 4,096 bits it is within 5 standard deviations of pi d / B = angle."""
    rows, bias, inputs = layer(seed)
    geometry = Geometry.of(rows, bias, inputs)
    index = sketch(geometry, 4096, seed)
    units, queries = geometry.rows, inputs.double() - geometry.centre
    cosine = (queries @ units.T) / (queries.norm(dim=1)[:, None] * units.norm(dim=1))
    share = torch.acos(cosine.clamp(-1, 1)) / math.pi
    spread = (share * (1 - share) / 4096).sqrt()
    assert ((index.distances(inputs) / 4096 - share).abs() < 5 * spread + 2e-3).all()


@pytest.mark.parametrize("bits", [8, 64, 256])
def test_a_limit_is_the_largest_distance_that_reaches_the_threshold(bits: int) -> None:
    rows, bias, inputs = layer()
    geometry = Geometry.of(rows, bias, inputs)
    every = torch.arange(bits + 1)[:, None].expand(-1, len(rows))
    estimates = geometry.estimates(every, bits)
    for threshold in (-20.0, 0.0, 7.0, 40.0):
        limit = geometry.limits(threshold, bits).long()
        reached = (estimates >= threshold - 1e-6).sum(
            0
        ) - 1  # the largest distance, as estimates fall; -1 for none
        assert torch.equal(limit, reached.clamp(0, ALWAYS))


def test_rows_of_zeros_and_of_one_value() -> None:
    inputs = torch.randn(20, 8)
    for rows in (torch.zeros(50, 8), torch.ones(50, 8)):
        geometry = Geometry.of(rows, torch.arange(50.0), inputs)
        index = sketch(geometry, 16, 0)
        limit = geometry.limits(30.0, 16)
        found = Index(index.planes, index.start, index.sketches, limit).candidates(inputs)
        assert found[:, 30:].all()


def test_where_none_is_near_all_are_candidates() -> None:
    rows, bias, inputs = layer()
    index = sketch(Geometry.of(rows, bias, inputs), 64, 0)
    never = Index(index.planes, index.start, ~index.sketches, torch.zeros(300, dtype=torch.uint8))
    assert never.candidates(inputs).all()
