"""Prune: remove the channels that matter least."""

from hashcompile.core.method import Rewrite
from hashcompile.passes.prune.apply import prune
from hashcompile.passes.prune.config import PruneChannels

REWRITE = Rewrite(name="prune", config=PruneChannels, apply=prune)

__all__ = ["REWRITE", "PruneChannels"]
