"""A damaged `.hc` file is refused, one way only."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hashcompile as hc
from tests.container.saved import GRAPH, MANIFEST, TENSORS, Saved, same


def test_what_is_no_file_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "m.hc"
    with pytest.raises(hc.ArtifactError, match="there is no file"):
        hc.load(path)
    with pytest.raises(hc.ArtifactError, match="cannot read"):
        hc.load(tmp_path)
    for data in (
        b"",
        b"PK",
        b"not a zip" * 50,
        b"PK\x03\x04" + bytes(100),
        bytes(1000),
        b"PK\x05\x06" + bytes(18),
    ):
        path.write_bytes(data)
        with pytest.raises(hc.ArtifactError, match=r"m\.hc"):
            hc.load(path)
    torch.save({"a": torch.ones(3)}, path)
    with pytest.raises(hc.ArtifactError, match="not a hashcompile file"):
        hc.load(path)


def test_truncated(small: Saved, tmp_path: Path) -> None:
    path = tmp_path / "m.hc"
    size = len(small.data)
    for length in (
        0,
        1,
        3,
        4,
        29,
        30,
        31,
        100,
        *range(0, size, size // 25),
        size - 100,
        size - 22,
        size - 2,
        size - 1,
    ):
        path.write_bytes(small.data[:length])
        with pytest.raises(hc.ArtifactError, match=r"m\.hc"):
            hc.load(path)


def attempt(path: Path, small: Saved) -> None:
    """A damaged file is refused, or gives exactly what was saved (where nothing reads the damaged place)."""
    try:
        loaded = hc.load(path)
    except hc.ArtifactError:
        return
    same(loaded, small.compiled)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_flipped_byte(small: Saved, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(small.data) - 1))
    flip = data.draw(st.integers(1, 255))
    damaged = bytearray(small.data)
    damaged[position] ^= flip
    path = small.path.with_name("flipped.hc")
    path.write_bytes(damaged)
    attempt(path, small)


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_of_the_directory(small: Saved, bit: int) -> None:
    """Every byte of the zip's own records: no checksum covers them."""
    first = small.data.index(b"PK\x01\x02")
    path = small.path.with_name("flipped.hc")
    for position in range(first, len(small.data)):
        damaged = bytearray(small.data)
        damaged[position] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            hc.container.read_manifest(path)
        except hc.ArtifactError:
            continue


@pytest.mark.parametrize("missing", [MANIFEST, GRAPH, TENSORS])
def test_a_missing_member(small: Saved, missing: str, tmp_path: Path) -> None:
    path = tmp_path / "m.hc"
    with zipfile.ZipFile(small.path) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            if name != missing:
                target.writestr(name, source.read(name))
    with pytest.raises(hc.ArtifactError, match=missing):
        hc.load(path)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"7", b"\xff\xfe", b"[" * 100_000])
def test_a_manifest_that_is_no_object(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.hc"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MANIFEST, text)
    with pytest.raises(hc.ArtifactError, match="not a hashcompile file"):
        hc.load(path)
