"""What the user writes: `Codebook(bits=4)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from hashcompile.core.checks import is_whole
from hashcompile.core.errors import ConfigError
from hashcompile.core.packing import TILE


@dataclass(frozen=True)
class Codebook:
    """Each weight is one of 2**bits allowed values, times one scale for each output channel.

    bits: 1 to 8, the width of an index.
    granularity: "per_tensor", one table for the whole weight; or "per_group", one for every `group_size` consecutive
        output channels (rows of an embedding).
    group_size: output channels that share a table; a multiple of 16, the rows of a kernel's tile.
    learn: assignments train as well as tables and scales, in `compiled.graph_module` or under `CodebookTraining`.

    Raises ConfigError.
    """

    bits: int = 4
    granularity: Literal["per_tensor", "per_group"] = "per_tensor"
    group_size: int | None = None
    learn: bool = False

    def __post_init__(self) -> None:
        if not is_whole(self.bits) or not 1 <= self.bits <= 8:
            raise ConfigError(f"Codebook(bits={self.bits!r}): bits must be a whole number from 1 to 8")
        if self.granularity not in ("per_tensor", "per_group"):
            raise ConfigError(
                f'Codebook(granularity={self.granularity!r}): granularity must be "per_tensor" or "per_group"'
            )
        if not isinstance(self.learn, bool):
            raise ConfigError(f"Codebook(learn={self.learn!r}): learn must be True or False")
        if self.granularity == "per_tensor" and self.group_size is not None:
            raise ConfigError(
                f'Codebook(group_size={self.group_size!r}): a group size needs granularity="per_group"'
            )
        if self.granularity == "per_group" and (
            not is_whole(self.group_size) or self.group_size < TILE or self.group_size % TILE
        ):
            raise ConfigError(
                f'Codebook(group_size={self.group_size!r}): with granularity="per_group", group_size must be '
                f"a multiple of {TILE}, such as {4 * TILE}"
            )

    def __str__(self) -> str:
        groups = f", groups of {self.group_size}" if self.group_size else ""
        return f"codebook {self.bits} bit{groups}{', learnt' if self.learn else ''}"

    @property
    def group_rows(self) -> int:
        """Rows of the weight that share a table; 0 means all."""
        return self.group_size or 0

    def tables(self, rows: int) -> int:
        """Tables of a weight with this many output channels."""
        return -(-rows // self.group_rows) if self.group_rows else 1


@dataclass(frozen=True)
class Int8:
    """Each weight is a whole number from -127 to 127, times one scale for each output channel.

    The 8-bit member of the family: stored as a codebook of 8 bits whose codes are the weights as signed bytes, so
    that a kernel need not look anything up. Codes carry error feedback as those of `Codebook` do.
    """

    bits: ClassVar[int] = 8
    group_rows: ClassVar[int] = 0

    def __str__(self) -> str:
        return "int8"

    def tables(self, rows: int) -> int:
        """One, whatever the number of output channels."""
        return 1
