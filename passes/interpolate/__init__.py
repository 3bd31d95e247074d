"""Interpolative decomposition: some units, and how the others are told from them."""

from hashcompile.core.method import Rewrite
from hashcompile.passes.interpolate.apply import interpolate
from hashcompile.passes.interpolate.config import Interpolative

REWRITE = Rewrite(name="interpolate", config=Interpolative, apply=interpolate)

__all__ = ["REWRITE", "Interpolative"]
