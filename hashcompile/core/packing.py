"""The T16 layout: how indices of 1 to 8 bits lie in memory, for every kernel and every artifact.

Rows come in tiles of 16, tiles in pairs. A *line* is 64 bytes: 16 rows x 4 bytes, so that after a shift the
bytes of a line are, row by row, four neighbouring k: the operand order of `vpdpbusd` and of NEON `sdot`. The two
tiles of a pair alternate line by line, and a whole layer is one sequential stream.

An index of b bits is cut into *planes* 8, 4, 2 or 1 bits wide, widest first, the widest holding the lowest bits: no
bit is wasted. A byte of a plane of width w holds 8/w indices' parts; sub-field s of byte kk of line l belongs to
    k = block * period + l * (32 / w) + 4 * s + kk.

    codes: (row_pairs, k_blocks, lines, 2, 16, 4) uint8
           row = 32 * row_pair + 16 * tile + r,   row_pairs = ceil(N / 32),   k_blocks = ceil(K / period)

Padding rows and padding k hold index 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

TILE = 16  # rows of a tile
PAIR = 2 * TILE  # rows of a tile pair: the unit of padding and of parallel work


class Plane(NamedTuple):
    width: int  # bits of the index held by this plane
    shift: int  # position of its lowest bit in the index
    lines: int  # lines of one period


class Layout(NamedTuple):
    bits: int
    period: int  # k covered by one block of lines
    planes: tuple[Plane, ...]

    @property
    def lines(self) -> int:
        """Lines of one period: period * bits / 32."""
        return sum(plane.lines for plane in self.planes)

    def shape(self, rows: int, columns: int) -> tuple[int, int, int, int, int, int]:
        """Shape of the codes of an (N=rows, K=columns) matrix."""
        return (-(-rows // PAIR), -(-columns // self.period), self.lines, 2, TILE, 4)


def layout(bits: int) -> Layout:
    """The planes of a `bits`-bit index, 1 to 8."""
    widths = [width for width in (8, 4, 2, 1) if bits & width]
    period = 32 // widths[-1]
    shifts = [sum(widths[:i]) for i in range(len(widths))]
    return Layout(
        bits, period, tuple(Plane(w, s, period * w // 32) for w, s in zip(widths, shifts, strict=True))
    )


def pack(indices: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Pack `indices: (N, K) uint8`, each below 2**bits, to `codes` in the T16 layout."""
    form = layout(bits)
    rows, columns = indices.shape
    pairs, blocks, lines, *_ = form.shape(rows, columns)
    padded = np.zeros((pairs * PAIR, blocks * form.period), np.uint8)
    padded[:rows, :columns] = indices
    codes = np.empty((pairs, blocks, lines, 2, TILE, 4), np.uint8)
    first = 0
    for plane in form.planes:
        fields = 8 // plane.width
        part = (padded >> plane.shift) & (2**plane.width - 1)
        part = part.reshape(pairs, 2, TILE, blocks, plane.lines, fields, 4).transpose(0, 3, 4, 1, 2, 6, 5)
        shifts = plane.width * np.arange(fields, dtype=np.uint8)
        codes[:, :, first : first + plane.lines] = np.bitwise_or.reduce(part << shifts, axis=-1)
        first += plane.lines
    return codes


def unpack(codes: npt.NDArray[np.uint8], bits: int, rows: int, columns: int) -> npt.NDArray[np.uint8]:
    """Inverse of `pack`: `indices: (N=rows, K=columns) uint8`."""
    form = layout(bits)
    if codes.shape != form.shape(rows, columns):
        raise ValueError(
            f"codes of shape {codes.shape}; {bits} bits, {rows} x {columns} need {form.shape(rows, columns)}"
        )
    pairs, blocks = codes.shape[:2]
    indices = np.zeros((pairs * PAIR, blocks * form.period), np.uint8)
    first = 0
    for plane in form.planes:
        shifts = plane.width * np.arange(8 // plane.width, dtype=np.uint8)
        part = (codes[:, :, first : first + plane.lines, ..., None] >> shifts) & (2**plane.width - 1)
        part = part.transpose(0, 3, 4, 1, 2, 6, 5).reshape(indices.shape)
        indices |= (part << plane.shift).astype(np.uint8)
        first += plane.lines
    return indices[:rows, :columns]
