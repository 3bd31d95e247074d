"""Members of a zip: deflated where that pays, never to more than a reader believes; equal content gives equal bytes."""

from __future__ import annotations

import zipfile
import zlib

from hashcompile.core.errors import ArtifactError

EPOCH = (1980, 1, 1, 0, 0, 0)  # the date of every member
LEVEL = 9  # of deflate
WORTH = 0.99  # of its size is what a member must deflate to
DENSEST = 200  # bytes that one deflated byte may stand for: honest JSON stays far below


def add(archive: zipfile.ZipFile, name: str, data: bytes, deflate: bool) -> None:
    how = zipfile.ZIP_DEFLATED if deflate and deflates(data) else zipfile.ZIP_STORED
    archive.writestr(zipfile.ZipInfo(name, EPOCH), data, how, LEVEL)


def deflates(data: bytes) -> bool:
    """Is it worth its time, and credible to a reader?"""
    small = len(zlib.compress(data, LEVEL))
    return small < WORTH * len(data) and len(data) < DENSEST * small


def check_sizes(archive: zipfile.ZipFile) -> None:
    """Refuse a member that would unpack to far more than the file holds. Raises ArtifactError."""
    for member in archive.infolist():
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArtifactError(
                f"{archive.filename} is not a hashcompile file: {member.filename} is compressed otherwise"
            )
        if member.file_size > DENSEST * member.compress_size:
            raise ArtifactError(
                f"{archive.filename}: {member.compress_size} bytes of {member.filename} claim to unpack to "
                f"{member.file_size}"
            )
