"""A product through fewer numbers: low-rank factors, and sampled columns."""

from hashcompile.core.method import Rewrite
from hashcompile.passes.lowrank.apply import factorise
from hashcompile.passes.lowrank.config import LowRank, Sampled
from hashcompile.passes.lowrank.thin import sample

REWRITE = Rewrite(name="lowrank", config=LowRank, apply=factorise)
SAMPLED = Rewrite(name="sampled", config=Sampled, apply=sample)

__all__ = ["REWRITE", "SAMPLED", "LowRank", "Sampled"]
