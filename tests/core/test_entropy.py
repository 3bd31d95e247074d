"""The entropy coder: there and back, close to the entropy, a format that stays, and streams that are not ours."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashcompile.core.entropy import STEPS, TOTAL, Bytes, coded_size, decode, encode, frequencies, lanes_of
from hashcompile.core.errors import ArtifactError

COUNTS = [0, 1, 2, 15, STEPS - 1, STEPS, STEPS + 1, 3 * STEPS - 1, 3 * STEPS, 5 * STEPS + 7]


def numbers(count: int, size: int, skew: float, seed: int = 0) -> Bytes:
    """Symbol s with a probability in proportion to exp(-skew s)."""
    chance = np.exp(-skew * np.arange(size))
    return np.random.default_rng(seed).choice(size, count, p=chance / chance.sum()).astype(np.uint8)


def stream_of(values: Bytes, size: int) -> Bytes:
    return np.frombuffer(encode(values, size), np.uint8)


def entropy(values: Bytes) -> float:
    """Bytes that no code of single symbols goes below."""
    times = np.unique(values, return_counts=True)[1]
    return float(-(times * np.log2(times / len(values))).sum() / 8) if len(values) else 0.0


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(("size", "skew"), [(2, 0.0), (2, 6.0), (3, 0.5), (16, 0.1), (256, 0.0), (256, 0.3)])
def test_there_and_back(count: int, size: int, skew: float) -> None:
    values = numbers(count, size, skew)
    stream = stream_of(values, size)
    assert np.array_equal(decode(stream, count, size), values)
    assert encode(values, size) == stream.tobytes()


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(2, 256))
def test_any_numbers(data: st.DataObject, size: int) -> None:
    values = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=60)), np.uint8)
    repeated = np.repeat(values, data.draw(st.integers(1, 100)))
    assert np.array_equal(decode(stream_of(repeated, size), len(repeated), size), repeated)


@pytest.mark.parametrize("symbol", [0, 7, 255])
def test_one_symbol_costs_nothing_but_its_lanes(symbol: int) -> None:
    values = np.full(5 * STEPS, symbol, np.uint8)
    stream = stream_of(values, 256)
    assert np.array_equal(decode(stream, len(values), 256), values)
    assert len(stream) == 1 + (symbol + 6) // 2 + 4 * 5, (
        "the last symbol; zeros and 4096, in digits; five states"
    )


@pytest.mark.parametrize(("size", "skew"), [(2, 1.0), (8, 0.4), (16, 0.0), (16, 0.3), (64, 0.1), (256, 0.02)])
def test_close_to_the_entropy(size: int, skew: float) -> None:
    """A lane wastes the 16 bits that it begins with, and up to 16 that its state does not use; rounding to frequencies
    of 1 / 4096 costs at most the sum of (p - f)^2 / f, below size / 4096 bits a symbol."""
    values = numbers(300_000, size, skew)
    got, least = len(encode(values, size)), entropy(values)
    assert (
        least
        <= got
        <= least * 1.0005 + 1 + 2 * size + 4 * lanes_of(len(values)) + len(values) * size / TOTAL / 8
    )
    assert got < least * 1.02
    assert abs(coded_size(values, size) - got) <= 0.002 * got + 2


def test_rare_symbols_keep_a_place() -> None:
    values = np.concatenate([np.zeros(1_000_000, np.uint8), np.arange(256, dtype=np.uint8)])
    shares = frequencies(values, 256)
    assert shares.sum() == TOTAL
    assert shares.min() == 1
    assert np.array_equal(decode(stream_of(values, 256), len(values), 256), values)


@settings(deadline=None)
@given(st.lists(st.integers(0, 300), min_size=2, max_size=12).filter(any))
def test_no_step_from_the_frequencies_is_shorter(times: list[int]) -> None:
    """Moving one unit from any symbol to any other does not gain more than the rounding of the rule itself."""
    values = np.repeat(np.arange(len(times), dtype=np.uint8), times)
    shares = frequencies(values, len(times))

    def bits(shares: list[int]) -> float:
        return sum(n * math.log2(TOTAL / f) for n, f in zip(times, shares, strict=True) if n)

    best = bits(list(shares))
    for a in range(len(times)):
        for b in range(len(times)):
            moved = list(map(int, shares))
            moved[a], moved[b] = moved[a] - 1, moved[b] + 1
            if a != b and moved[a] >= (times[a] > 0):
                assert bits(moved) >= best * (1 - 1e-3) - 1e-6


def scalar(stream: bytes, count: int, size: int) -> list[int]:
    """The format in plain integers, one number after another."""
    text, shares, digits, power = stream[1:].hex(), [0], 0, 0
    while len(shares) <= stream[0] + 1:
        digit = int(text[digits ^ 1], 16)  # of a byte, the low half is first
        shares[-1] += (digit % 8) * 8**power
        digits, power = digits + 1, power + 1
        if digit < 8:
            power = 0
            shares.append(0)
    place = 1 + (digits + 1) // 2
    owner = [s for s, f in enumerate(shares) for _ in range(f)]
    lanes = -(-count // 2048)
    states = [int.from_bytes(stream[place + 4 * i :][:4], "little") for i in range(lanes)]
    place += 4 * lanes
    values = []
    for number in range(count):
        x = states[number % lanes]
        s = owner[x % 4096]
        x = shares[s] * (x // 4096) + x % 4096 - sum(shares[:s])
        if x < 65536:
            x = x * 65536 + int.from_bytes(stream[place : place + 2], "little")
            place += 2
        states[number % lanes] = x
        values.append(s)
    assert place == len(stream)
    assert all(x == 65536 for x in states)
    return values


@pytest.mark.parametrize("count", COUNTS)
def test_the_format(count: int) -> None:
    values = numbers(count, 9, 0.4)
    if count:
        assert scalar(encode(values, 9), count, 9) == values.tolist()


def test_the_format_stays() -> None:
    """Files count on it."""
    assert encode(np.array([0, 1, 0, 2, 0, 0, 3, 1], np.uint8), 4).hex() == GOLDEN


GOLDEN = "03884888288818881800b09340"


@pytest.fixture(scope="module")
def two_lanes() -> tuple[Bytes, bytes]:
    values = numbers(STEPS + 90, 16, 0.2)
    return values, encode(values, 16)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_damage_never_gives_what_was_not_there(two_lanes: tuple[Bytes, bytes], data: st.DataObject) -> None:
    """A flipped byte is an error, or other numbers of the alphabet; a checksum tells which."""
    values, stream = two_lanes[0], bytearray(two_lanes[1])
    stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        got = decode(np.frombuffer(bytes(stream), np.uint8), len(values), 16)
    except ArtifactError:
        return
    assert got.shape == values.shape
    assert got.max() < 16


def test_truncated_and_too_long() -> None:
    values = numbers(500, 16, 0.2)
    stream = encode(values, 16)
    for length in range(len(stream)):
        with pytest.raises(ArtifactError):
            decode(np.frombuffer(stream[:length], np.uint8), 500, 16)
    for more in (b"\0", b"\0\0", bytes(1000)):
        with pytest.raises(ArtifactError):
            decode(np.frombuffer(stream + more, np.uint8), 500, 16)


@pytest.mark.parametrize("count", [0, 2999, 3001, STEPS, 1 << 20, 1 << 40, 1 << 62])
def test_another_count_is_refused_and_nothing_allocated(count: int) -> None:
    stream = stream_of(numbers(3000, 16, 0.2), 16)
    with pytest.raises(ArtifactError):
        decode(stream, count, 16)


@pytest.mark.parametrize(
    "stream", [b"", b"\0", b"\0\x88", b"\0\7", b"\1\x88\x88\x11", b"\4" + bytes(9), b"\0" + b"\xff" * 99]
)
def test_tables_that_are_none(stream: bytes) -> None:
    with pytest.raises(ArtifactError, match="frequencies of 4 symbols"):
        decode(np.frombuffer(stream + bytes(8), np.uint8), 1, 4)


def test_a_larger_alphabet_than_was_asked_for() -> None:
    values = numbers(3000, 16, 0.0)
    with pytest.raises(ArtifactError, match="frequencies of 8 symbols"):
        decode(stream_of(values, 16), 3000, 8)
