"""Where the kept weights are: a bitmap, or the gaps between them; whichever takes fewer bytes.

bitmap  one bit a weight.
gaps    b bits a kept weight: how many zeros are between it and the one before. The code of all ones, G = 2^b - 1, is a
        filler: it passes over G zeros, and stands for no weight. (Relative indices: Deep Compression, Han, Mao & Dally
        2016, arXiv 1510.00149; there a filler stores its zero among the values too.)

So an entry advances by min(code + 1, G) weights, row by row.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hashcompile.core.entropy import Symbols, coded_size
from hashcompile.core.errors import ArtifactError
from hashcompile.core.storage import Storage
from hashcompile.passes.sparse import planes

WIDTHS = range(2, 9)  # bits of a gap


def gaps(mask: Tensor, bits: int) -> Tensor:
    """Codes (entries,) uint8 of `mask: (n,)`."""
    most = 2**bits - 1
    places = torch.nonzero(mask).flatten()
    zeros = places.diff(prepend=torch.tensor([-1])) - 1
    fillers = zeros // most
    ends = (fillers + 1).cumsum(0)
    codes = torch.full((int(ends[-1]) if len(ends) else 0,), most, dtype=torch.uint8)
    codes[ends - 1] = (zeros - fillers * most).to(torch.uint8)
    return codes


def store(mask: Tensor) -> dict[str, Tensor]:
    """`mask: (n,)` as {"bitmap": (1, ceil(n / 8))} or {"gaps": (b, ceil(entries / 8)), "entries": ()}."""
    best = {"bitmap": planes.pack(mask.to(torch.uint8), 1)}
    for bits in WIDTHS:
        codes = gaps(mask, bits)
        if planes.size(len(codes), bits) < next(iter(best.values())).nbytes:
            best = {"gaps": planes.pack(codes, bits)}
            best["entries"] = torch.tensor(len(codes))
    return best


def symbols(mask: Tensor) -> Symbols:
    """`mask: (n,)` for an entropy coder: the bitmap, an alphabet of two, or the gaps; whichever takes fewer bytes."""
    forms = [(mask.to(torch.uint8), 2), *((gaps(mask, bits), 2**bits) for bits in WIDTHS)]
    return Symbols(*min(forms, key=lambda form: coded_size(form[0].numpy(), form[1])), tuple(store(mask)))


def restore(storage: Storage, count: int) -> Tensor:
    """Inverse of `store` or `symbols`, for `count` weights. Raises ArtifactError."""
    if "places" not in storage.coded:
        return unpacked(storage.tensors, count)
    entries, size = storage.coded["places"].count, storage.coded["places"].size
    if size == 2:
        return storage.numbers("places", count, size).bool()
    if size not in [2**bits for bits in WIDTHS] or not 0 <= entries <= count:
        raise ArtifactError(f"places of {entries} numbers below {size} for {count} weights")
    return mask_of(storage.numbers("places", entries, size), size - 1, count)


def unpacked(storage: Mapping[str, Tensor], count: int) -> Tensor:
    kinds = [name for name in ("bitmap", "gaps") if name in storage]
    if len(kinds) != 1:
        raise ArtifactError("a sparse weight needs a bitmap or gaps, and not both")
    held = storage[kinds[0]]
    if held.dtype != torch.uint8 or held.ndim != 2:
        raise ArtifactError(f"{kinds[0]} is {held.dtype} {tuple(held.shape)}, wanted planes of torch.uint8")
    if kinds == ["bitmap"]:
        if tuple(held.shape) != (1, -(-count // 8)):
            raise ArtifactError(f"a bitmap of {tuple(held.shape)} for {count} weights")
        return planes.unpack(held, count).bool()
    entries = storage.get("entries")
    if entries is None or entries.dtype != torch.int64 or entries.ndim:
        raise ArtifactError("gaps without the number of their entries")
    size = int(entries)
    if len(held) not in WIDTHS or not 0 <= size <= count or held.shape[1] != -(-size // 8):
        raise ArtifactError(f"gaps of {tuple(held.shape)} for {size} entries of {count} weights")
    return mask_of(planes.unpack(held, size), 2 ** len(held) - 1, count)


def mask_of(codes: Tensor, most: int, count: int) -> Tensor:
    """Inverse of `gaps`, `most` being the filler. Raises ArtifactError."""
    places = (codes.long() + 1).clamp(max=most).cumsum(0) - 1
    if len(places) and int(places[-1]) >= count:
        raise ArtifactError(f"gaps that reach weight {int(places[-1])} of {count}")
    mask = torch.zeros(count, dtype=torch.bool)
    mask[places[codes < most]] = True
    return mask
