"""HashedWeight: its rows, its gradients, what it stores, and what it refuses to be made of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import hashcompile as hc
from hashcompile.core.rows import RowView
from hashcompile.core.storage import Storage
from hashcompile.passes.hashed import HashedWeight
from hashcompile.passes.hashed.hash import buckets, hashes
from hashcompile.passes.hashed.weight import places


def values(count: int) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(count))


def one_by_one(rows: int, columns: int, given: Tensor, seed: int, tile: bool) -> Tensor:
    """The rows, place by place."""
    found = torch.empty(rows, columns)
    side = 16 if tile else 1
    for n in range(rows):
        for k in range(columns):
            hashed = hashes(torch.tensor([n // side]), torch.tensor([k // side]), seed)
            bucket, negative = (int(part) for part in buckets(hashed, len(given) // side**2))
            place = bucket * side**2 + side * (k % side) + n % side
            found[n, k] = -given[place] if negative else given[place]
    return found


@pytest.mark.parametrize(
    ("rows", "columns", "count", "tile"),
    [
        (1, 1, 1, False),
        (7, 13, 20, False),
        (1, 40, 3, False),
        (16, 16, 256, True),
        (19, 35, 512, True),
        (1, 50, 256, True),
    ],
)
def test_rows(rows: int, columns: int, count: int, tile: bool) -> None:
    code = HashedWeight(RowView((rows, columns)), values(count), 77, tile)
    assert torch.equal(code.rows(), one_by_one(rows, columns, values(count), 77, tile))
    factor = torch.arange(rows) - 2.5
    twice = code.scaled(factor).scaled(factor)
    torch.testing.assert_close(twice.rows(), code.rows() * factor[:, None] ** 2)
    assert torch.equal(code.in_bf16().rows(), code.rows().bfloat16().float())
    assert torch.equal(twice.in_bf16().rows(), code.in_bf16().rows() * (factor * factor)[:, None])


def test_large_weights_are_hashed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for tile, count in ((False, 100), (True, 768)):
        whole = places(100, 70, count, 5, tile)
        with monkeypatch.context() as patch:
            patch.setattr("hashcompile.passes.hashed.weight.CHUNK", 3000)
            assert torch.equal(places(100, 70, count, 5, tile), whole)


@pytest.mark.parametrize("tile", [False, True])
def test_gradients_gather_in_buckets(tile: bool) -> None:
    code = HashedWeight(RowView((30, 20)), values(256), 5, tile).scaled(torch.rand(30))
    above = torch.randn(30, 20)
    (code.rows() * above).sum().backward()
    assert code.scale is not None and code.values.grad is not None and code.scale.grad is not None
    index, signed = code.index.long(), above.double() * code.scale.detach().double()[:, None]
    for bucket in range(256):
        wanted = signed[index == bucket].sum() - signed[index == bucket + 256].sum()
        assert float(code.values.grad[bucket]) == pytest.approx(float(wanted), rel=1e-5, abs=1e-6)
    plain = one_by_one(30, 20, values(256), 5, tile)
    torch.testing.assert_close(code.scale.grad, (plain * above).sum(1))


@pytest.mark.parametrize("tile", [False, True])
def test_a_row_of_padding(tile: bool) -> None:
    """Zero in every copy, and without a gradient for the values; all other rows are what they were."""
    view, given = RowView((30, 20)), values(256)
    plain, padded = HashedWeight(view, given, 5, tile), HashedWeight(view, given, 5, tile, padding=17)
    again = HashedWeight.restore(view, padded.describe(), Storage(padded.storage()))
    for code in (padded, padded.scaled(torch.rand(30)), padded.in_bf16(), again):
        assert code.padding == 17 and not code.rows()[17].any()
    others = torch.arange(30) != 17
    assert torch.equal(padded.rows()[others], plain.rows()[others])
    padded.rows()[17].sum().backward()
    assert padded.values.grad is not None and not padded.values.grad.any()


@pytest.mark.parametrize("scaled", [False, True])
def test_what_is_stored(scaled: bool) -> None:
    code = HashedWeight(RowView((30, 2, 10)), values(75), 2**31 - 1, False)
    code = code.scaled(torch.rand(30)) if scaled else code
    assert code.nbytes == 4 * 75 + (4 * 30 if scaled else 0)
    assert set(code.state_dict()) == ({"values", "scale"} if scaled else {"values"})
    again = HashedWeight.restore(code.view, code.describe(), Storage(code.storage()))
    assert torch.equal(again(), code()) and again().shape == (30, 2, 10)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": -1}, "seed -1"),
        ({"seed": 2**31}, "seed 2147483648"),
        ({"seed": 1.0}, "seed 1.0"),
        ({"seed": True}, "seed True"),
        ({"seed": None}, "seed None"),
        ({"tile": 1}, "tile is 1"),
        ({"tile": True}, "75 values, tile=True"),
        ({"values": None}, "float32 values"),
        ({"values": torch.zeros(75).double()}, "float32 values"),
        ({"values": torch.zeros(75, 1)}, "float32 values"),
        ({"values": torch.zeros(0)}, "0 values"),
        ({"scale": torch.zeros(29)}, "scale is torch.float32 \\(29,\\), wanted float32 \\(30,\\)"),
        ({"scale": torch.zeros(30).double()}, "scale is torch.float64"),
        ({"padding": 30}, "30 rows, of which 30 is that of padding"),
        ({"padding": -1}, "-1 is that of padding"),
        ({"padding": True}, "True is that of padding"),
        ({"padding": 1.0}, "1.0 is that of padding"),
        ({"shape": (1 << 10, 1 << 10)}, "shape \\(1024, 1024\\) with 75 values"),
        ({"shape": (0, 20)}, "shape \\(0, 20\\)"),
        ({"shape": (-4, -5)}, "shape"),
    ],
)
def test_a_damaged_description(changed: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "seed": 5,
        "tile": False,
        "values": torch.zeros(75),
        "scale": None,
        "shape": (30, 20),
    }
    given |= changed
    storage = {name: given[name] for name in ("values", "scale") if given[name] is not None}
    description = {name: given[name] for name in ("seed", "tile", "padding") if name in given}
    with pytest.raises(hc.ArtifactError, match=message):
        HashedWeight.restore(RowView(given["shape"]), description, Storage(storage))
