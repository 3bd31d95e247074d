"""One section of an ELF file, read without loading the file: it may be made for another CPU, and loading runs its code.

Layout: System V Application Binary Interface, chapters 4 and 5, of 64-bit little-endian files.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hashcompile.core.errors import ArtifactError

MAGIC = b"\x7fELF"
FILE_HEADER = struct.Struct("<4sBBB9xHHIQQQIHHHHHH")
SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
MACHINES = {62: "x86_64", 183: "aarch64"}  # as platform.machine() names them on Linux
LARGEST = 1 << 20  # bytes of what is read: names of sections, and a section


@dataclass(frozen=True)
class Section:
    machine: str  # what the file is made for
    content: bytes | None  # None: there is no section of that name


def read_section(path: Path, name: str) -> Section:
    """Raises ArtifactError where the file is no 64-bit little-endian ELF file, or is cut short."""
    with path.open("rb") as file:
        header = FILE_HEADER.unpack(take(path, file, 0, FILE_HEADER.size))
        magic, width, order = header[:3]
        if magic != MAGIC or (width, order) != (2, 1):
            raise ArtifactError(f"{path}: not a 64-bit little-endian ELF file")
        machine, start, size, count, names_at = header[5], header[9], *header[14:17]
        if size != SECTION_HEADER.size or names_at >= count:
            raise ArtifactError(f"{path}: its section headers cannot be read")
        table = take(path, file, start, size * count)
        sections = list(SECTION_HEADER.iter_unpack(table))
        names = content_of(path, file, sections[names_at])
        found = [each for each in sections if names[each[0] :].split(b"\0", 1)[0] == name.encode()]
        content = content_of(path, file, found[0]) if found else None
        return Section(MACHINES.get(machine, f"ELF machine {machine}"), content)


def content_of(path: Path, file: BinaryIO, header: tuple[int, ...]) -> bytes:
    return take(path, file, offset=header[4], size=header[5])


def take(path: Path, file: BinaryIO, offset: int, size: int) -> bytes:
    if size <= LARGEST and offset + size <= path.stat().st_size:
        file.seek(offset)
        return file.read(size)
    raise ArtifactError(f"{path}: cut short, or damaged: {size} bytes at {offset} are not there")
