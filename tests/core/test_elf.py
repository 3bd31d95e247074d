"""Sections of ELF files are found where readelf finds them, and a damaged file is one clear error."""

from __future__ import annotations

import platform
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from hashcompile.core.elf import FILE_HEADER, MACHINES, read_section
from hashcompile.core.errors import ArtifactError
from hashcompile_runtime import library_path

LIBRARY = Path(library_path())

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux", reason="shared libraries are ELF files on Linux only"
)


def test_a_section_is_what_readelf_says_it_is() -> None:
    if not (readelf := shutil.which("readelf")):
        pytest.skip("readelf is not installed")
    text = subprocess.run([readelf, "-SW", LIBRARY], capture_output=True, text=True, check=True).stdout
    for name in (".init", ".comment"):
        found = re.search(rf" {re.escape(name)} +PROGBITS +\w+ (\w+) (\w+)", text)
        assert found
        offset, size = (int(digits, 16) for digits in found.groups())
        section = read_section(LIBRARY, name)
        assert section.machine == platform.machine()
        assert section.content == LIBRARY.read_bytes()[offset : offset + size]
    assert read_section(LIBRARY, ".no_such_section").content is None


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, b"\x7fELG", "not a 64-bit little-endian ELF file"),
        (4, b"\x01", "not a 64-bit little-endian ELF file"),
        (5, b"\x02", "not a 64-bit little-endian ELF file"),
        (40, struct.pack("<Q", 1 << 62), "cut short, or damaged"),
        (58, struct.pack("<H", 63), "section headers cannot be read"),
        (62, struct.pack("<H", 0xFFFF), "section headers cannot be read"),
    ],
    ids=["magic", "width", "order", "far", "entry", "names"],
)
def test_a_damaged_header_is_an_error(at: int, value: bytes, message: str, tmp_path: Path) -> None:
    content = bytearray(LIBRARY.read_bytes())
    content[at : at + len(value)] = value
    (tmp_path / "m.so").write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"m\.so.*{message}"):
        read_section(tmp_path / "m.so", ".init")


def test_a_file_that_ends_early_is_an_error(tmp_path: Path) -> None:
    whole = LIBRARY.read_bytes()
    for size in (0, 5, FILE_HEADER.size - 1, FILE_HEADER.size, len(whole) - 1):
        (tmp_path / "m.so").write_bytes(whole[:size])
        with pytest.raises(ArtifactError, match=r"m\.so: cut short"):
            read_section(tmp_path / "m.so", ".init")


def test_the_machine_is_told_whatever_it_is(tmp_path: Path) -> None:
    content = bytearray(LIBRARY.read_bytes())
    for number, name in (*MACHINES.items(), (8, "ELF machine 8")):
        content[18:20] = struct.pack("<H", number)
        (tmp_path / "m.so").write_bytes(content)
        assert read_section(tmp_path / "m.so", ".init").machine == name
