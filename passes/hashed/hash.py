"""Where a weight finds its value: a hash of its row and column. Files count on it: it never changes.

With row i, column j, a seed below 2^31 and B buckets,

    mix(x):  x ^= x >> 15;  x = x * 0x5A827999 mod 2^31;  x ^= x >> 13;  x = x * 0x6ED9EBA1 mod 2^31;  x ^= x >> 16
    r(i)   = mix((2 i + seed) mod 2^31)
    c(j)   = mix((2 j + 1 + seed) mod 2^31)
    x(i,j) = mix(r(i) ^ c(j))

    bucket = floor((x >> 1) * B / 2^30),  and the weight is the negative of its value where x is odd

mix maps the 31-bit numbers one to one; its factors are the roots of 2 and 3. No step leaves 62 bits or meets a negative
number, so that the standard operators of ONNX say the same in int64 (`onnx.py`), and rows can be hashed one by one.
Rows and columns are mixed before they meet: else W would repeat itself at a fixed distance.
"""

from __future__ import annotations

import hashlib

from torch import Tensor

BITS = 31
MASK = 2**BITS - 1
ROUNDS = ((15, 0x5A827999), (13, 0x6ED9EBA1))  # (shift, factor)
LAST_SHIFT = 16


def layer_seed(seed: int, name: str) -> int:
    """The seed of a layer's own hash, below 2^31: from the user's seed and the parameter's name."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:4], "little") & MASK


def mix(x: Tensor) -> Tensor:
    """Of int64 from 0 to 2^31 - 1, into the same range, one to one."""
    for shift, factor in ROUNDS:
        x = ((x ^ (x >> shift)) * factor) & MASK
    return x ^ (x >> LAST_SHIFT)


def hashes(rows: Tensor, columns: Tensor, seed: int) -> Tensor:
    """x of every pair of row numbers (n,) and column numbers (k,), int64: (n, k)."""
    r, c = mix((2 * rows + seed) & MASK), mix((2 * columns + 1 + seed) & MASK)
    return mix(r[:, None] ^ c)


def buckets(hashed: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(bucket: 0 to count - 1, negative: 0 or 1) of hashes, int64."""
    return ((hashed >> 1) * count) >> (BITS - 1), hashed & 1
