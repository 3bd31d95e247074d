"""Merge: one unit stands for several that are alike."""

from hashcompile.core.method import Rewrite
from hashcompile.passes.merge.apply import merge
from hashcompile.passes.merge.config import MergeChannels
from hashcompile.passes.merge.rehash import RehashSchedule

REWRITE = Rewrite(name="merge", config=MergeChannels, apply=merge)

__all__ = ["REWRITE", "MergeChannels", "RehashSchedule"]
