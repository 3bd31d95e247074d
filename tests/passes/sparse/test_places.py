"""Where kept weights are, and small numbers in planes: there and back, the smaller form, and what is damaged."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hashcompile.core.errors import ArtifactError
from hashcompile.core.storage import Storage
from hashcompile.passes.sparse import places, planes


def mask_of(count: int, density: float, seed: int) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)) < density


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(1, 8), st.integers(0, 1000))
def test_planes_there_and_back(count: int, bits: int, seed: int) -> None:
    values = torch.randint(0, 2**bits, (count,), generator=torch.Generator().manual_seed(seed)).to(
        torch.uint8
    )
    packed = planes.pack(values, bits)
    assert packed.shape == (bits, -(-count // 8)) and packed.nbytes == planes.size(count, bits)
    assert torch.equal(planes.unpack(packed, count), values)
    for number in range(count):  # bit p of a number is bit (number % 8) of byte number // 8 of plane p
        read = [(int(packed[p, number // 8]) >> (number % 8)) & 1 for p in range(bits)]
        assert sum(bit << p for p, bit in enumerate(read)) == int(values[number])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 700), st.sampled_from([0.0, 0.005, 0.05, 0.3, 1.0]), st.integers(0, 1000))
def test_places_there_and_back(count: int, density: float, seed: int) -> None:
    mask = mask_of(count, density, seed)
    stored = places.store(mask)
    assert torch.equal(places.restore(Storage(stored), count), mask)
    assert sum(part.nbytes for name, part in stored.items() if name != "entries") <= -(-count // 8)


@pytest.mark.parametrize("bits", places.WIDTHS)
@pytest.mark.parametrize("around", [-1, 0, 1, 2])
def test_gaps_around_the_longest(bits: int, around: int) -> None:
    """One weight behind as many zeros as a code can say, one fewer, one more; and twice that."""
    most = 2**bits - 1
    for zeros in (most + around, 2 * most + around):
        mask = torch.zeros(zeros + 3, dtype=torch.bool)
        mask[zeros] = mask[-1] = True
        codes = places.gaps(mask, bits)
        assert int((codes < most).sum()) == 2 and len(codes) - 2 == zeros // most
        held = {"gaps": planes.pack(codes, bits), "entries": torch.tensor(len(codes))}
        assert torch.equal(places.restore(Storage(held), len(mask)), mask)


def test_the_smaller_form_is_taken() -> None:
    assert set(places.store(mask_of(4000, 0.5, 0))) == {"bitmap"}
    assert set(places.store(mask_of(4000, 0.01, 0))) == {"gaps", "entries"}


@pytest.mark.parametrize(
    "storage",
    [
        {},
        {"bitmap": torch.zeros(1, 2, dtype=torch.uint8), "gaps": torch.zeros(2, 1, dtype=torch.uint8)},
        {"bitmap": torch.zeros(1, 3, dtype=torch.uint8)},
        {"bitmap": torch.zeros(1, 2)},
        {"gaps": torch.zeros(2, 1, dtype=torch.uint8)},
        {"gaps": torch.zeros(9, 1, dtype=torch.uint8), "entries": torch.tensor(3)},
        {"gaps": torch.zeros(2, 1, dtype=torch.uint8), "entries": torch.tensor(9)},
        {"gaps": torch.zeros(2, 1, dtype=torch.uint8), "entries": torch.tensor(-1)},
        {"gaps": torch.full((2, 1), 255, dtype=torch.uint8), "entries": torch.tensor(8)},  # beyond the end
        {"gaps": torch.zeros(2, 2, dtype=torch.uint8), "entries": torch.tensor(17)},
    ],
)
def test_damaged(storage: dict[str, Tensor]) -> None:
    with pytest.raises(ArtifactError):
        places.restore(Storage(storage), 16)
