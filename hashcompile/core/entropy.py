"""Entropy coding of small whole numbers: static rANS, in lanes that numpy steps through side by side.

A symbol s of frequency f of M = 2^12 costs log2(M / f) bits (Duda 2013, arXiv 1311.2540; interleaved as in Giesen 2014,
arXiv 1402.3392). Encoding walks backwards, so that decoding walks forwards:

    encode  from x >= f 2^20 on, give away the low 16 bits;  x = (x // f) M + start + x % f
    decode  slot = x % M belongs to s;  x = f (x // M) + slot - start;  below 2^16, take 16 bits

Numbers go to the lanes in turns. Every lane begins at 2^16 and must end there.

    stream: (last symbol) u8 | frequencies of symbols 0 to last | lane states u32 | words u16, little-endian

A frequency is written in octal digits, the lowest first, 8 added to all but its last; two digits are a byte.

A lane holds at most `STEPS` numbers and costs four bytes: so few bytes cannot ask for many numbers.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from hashcompile.core.errors import ArtifactError

CODER = "rANS"
PRECISION = 12  # bits of a frequency
TOTAL = 1 << PRECISION
DIGITS = 5  # octal, that a frequency takes at most
LOW = 1 << 16  # a state is never below, between two steps
STEPS = (
    2048  # numbers of a lane: more cost less space (two bytes a lane) and more time (a step of numpy each)
)

Bytes = npt.NDArray[np.uint8]


class Symbols(NamedTuple):
    """Whole numbers as a coder sees them, and the packed tensors for which they can stand in a file."""

    values: Tensor  # (n,) uint8
    size: int  # of the alphabet, 2 to 256: every value is below it
    instead: tuple[str, ...]  # names in `EncodedWeight.storage()`


def encode(values: Bytes, size: int) -> bytes:
    """`values: (n,) uint8`, each below `size`, as a stream. The same values give the same bytes."""
    frequency = frequencies(values, size)
    start = (np.cumsum(frequency) - frequency).astype(np.uint32)
    share = frequency.astype(np.uint32)
    lanes = lanes_of(len(values))
    x = np.full(lanes, LOW, np.uint32)
    words: list[npt.NDArray[np.uint16]] = []
    for first in reversed(range(0, len(values), max(lanes, 1))):
        s = values[first : first + lanes]
        f, now = share[s], x[: len(s)]
        full = np.flatnonzero((now >> 20) >= f)
        words.append(now[full].astype(np.uint16))
        now[full] >>= 16
        whole = now // f
        now[:] = (whole << PRECISION) + start[s] + (now - whole * f)
    return b"".join(
        (table(frequency), x.astype("<u4").tobytes(), *(w.astype("<u2").tobytes() for w in reversed(words)))
    )


def decode(stream: Bytes, count: int, size: int) -> Bytes:
    """Inverse of `encode`, for `count` numbers below `size`. Raises ArtifactError."""
    frequency, begin = read_table(stream, size)
    lanes = lanes_of(count)
    body = stream[begin:]
    if len(body) < 4 * lanes or len(body) % 2:
        raise ArtifactError(f"{len(stream)} bytes of entropy code cannot hold {count} numbers")
    x = body[: 4 * lanes].view("<u4").astype(np.uint32)
    words = body[4 * lanes :].view("<u2").astype(np.uint32)
    owner = np.repeat(np.arange(size, dtype=np.uint8), frequency)
    share = frequency.astype(np.uint32)[owner]
    within = np.arange(TOTAL, dtype=np.uint32) - (np.cumsum(frequency) - frequency).astype(np.uint32)[owner]
    values = np.empty(count, np.uint8)
    taken = 0
    for first in range(0, count, max(lanes, 1)):
        now = x[: min(lanes, count - first)]
        slot = now & (TOTAL - 1)
        values[first : first + lanes] = owner[slot]
        now >>= PRECISION
        now *= share[slot]
        now += within[slot]
        few = np.flatnonzero(now < LOW)
        fresh = words[taken : taken + len(few)]
        if len(fresh) < len(few):
            raise ArtifactError(f"entropy code ends after {first} of {count} numbers")
        now[few] = (now[few] << 16) | fresh
        taken += len(few)
    if taken < len(words) or bool((x != LOW).any()):
        raise ArtifactError(f"entropy code is not that of {count} numbers")
    return values


def coded_size(values: Bytes, size: int) -> int:
    """Bytes of `encode(values, size)`, told from the frequencies: two bytes a lane are always there, and may be off."""
    frequency, lanes = frequencies(values, size), lanes_of(len(values))
    times = np.bincount(values, minlength=size)
    there = times > 0
    bits = float((times[there] * (PRECISION - np.log2(frequency[there]))).sum())
    return len(table(frequency)) + 3 * lanes + math.ceil(bits / 8)


def frequencies(values: Bytes, size: int) -> npt.NDArray[np.int64]:
    """(size,) of sum `TOTAL`, at least 1 where a value occurs: rounded, then moved where that costs least.

    d/df of n log2 f is n / f, so n / (f +- 1/2) is what the next step is worth; plain division, hence the same on every
    machine.
    """
    times = np.bincount(values, minlength=size).astype(np.int64)
    if not len(values):
        times[0] = 1
    share = np.maximum(times * TOTAL // times.sum(), times > 0)
    while (left := TOTAL - int(share.sum())) != 0:
        if left > 0:
            share[np.argmax(times / (share + 0.5))] += 1
        else:
            share[np.argmin(np.where(share > 1, times / (share - 0.5), np.inf))] -= 1
    return share


def table(frequency: npt.NDArray[np.int64]) -> bytes:
    last = int(np.flatnonzero(frequency)[-1])
    digits: list[int] = []
    for each in map(int, frequency[: last + 1]):
        while each >= 8:
            digits.append(each & 7 | 8)
            each >>= 3
        digits.append(each)
    digits += [0] * (len(digits) % 2)
    return bytes([last, *(a | b << 4 for a, b in zip(digits[::2], digits[1::2], strict=True))])


def read_table(stream: Bytes, size: int) -> tuple[npt.NDArray[np.int64], int]:
    """The frequencies at the head of a stream, (size,), and where they end. Raises ArtifactError."""
    wanted = int(stream[0]) + 1 if len(stream) else 0
    head = stream[1 : 1 + DIGITS * wanted]
    digits = np.stack([head & 15, head >> 4], axis=1).ravel()
    ends = np.flatnonzero(digits < 8)[:wanted] + 1
    frequency = np.zeros(size, np.int64)
    if wanted <= size and len(ends) == wanted:
        for symbol, (begin, end) in enumerate(itertools.pairwise([0, *ends.tolist()])):
            frequency[symbol] = sum(int(d & 7) << 3 * i for i, d in enumerate(digits[begin:end][:DIGITS]))
    if int(frequency.sum()) != TOTAL:
        raise ArtifactError(f"entropy code without the frequencies of {size} symbols")
    return frequency, 1 + (int(ends[-1]) + 1) // 2


def lanes_of(count: int) -> int:
    return -(-count // STEPS)
