"""What is compared: every method and importance, each at several strengths, from strong to weak or weak to strong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import hashcompile as hc
from hashcompile.passes.prune.importance import IMPORTANCES

RULES = ("pq_index", "column_norm")  # that decide how much goes
AMOUNTS = (0.1, 0.2, 0.3, 0.4, 0.5)
ENERGIES = (0.9, 0.95, 0.98, 0.99)  # of the outputs, kept by a low-rank layer
SHARES = (0.25, 0.5, 0.75)  # of the columns, drawn
TOLERANCES = (0.1, 0.2, 0.3, 0.4, 0.55)


@dataclass(frozen=True)
class Way:
    name: str
    config: Callable[[float], Any]
    strengths: tuple[float, ...] = AMOUNTS

    def among(self, wanted: Sequence[float] | None) -> Sequence[float]:
        """The strengths that were asked for; a way that has but one keeps to it."""
        return wanted if wanted and len(self.strengths) > 1 else self.strengths


def ways() -> Iterator[Way]:
    yield Way("whole", lambda _: hc.PruneChannels(0), (0.0,))
    for importance in IMPORTANCES:
        yield Way(importance, lambda amount, by=importance: hc.PruneChannels(amount, by))
    yield Way("l2, global", lambda amount: hc.PruneChannels(amount, scope="global"))
    for how in ("fold", "refit"):
        yield Way(f"l2 + {how}", lambda amount, how=how: hc.PruneChannels(amount, correction=how))
        yield Way(
            f"interpolative + {how}",
            lambda tolerance, how=how: hc.Interpolative(tolerance, correction=how),
            TOLERANCES,
        )
    for by in ("weights", "activations"):
        for how in ("sum", "fold", "refit"):
            yield Way(
                f"merge by {by} + {how}",
                lambda amount, by=by, how=how: hc.MergeChannels(amount, by=by, correction=how),
            )
    yield Way(
        "merge, learnt planes",
        lambda amount: hc.MergeChannels(amount, by="activations", learnt=True, correction="refit"),
    )
    for rule in RULES:
        yield Way(f"auto, {rule}", lambda _, rule=rule: hc.PruneChannels("auto", rule=rule), (0.0,))


def thin_ways(convolutional: bool) -> Iterator[Way]:
    """Of computing a product from fewer numbers, in the form that suits a convolution best, and in each of them."""
    for by in ("svd", "pca", "whitened"):
        yield Way(f"by {by}", lambda energy, by=by: hc.LowRank(energy=energy, by=by, conv="auto"), ENERGIES)
    for conv in ("tucker", "spatial", "channel") if convolutional else ():
        yield Way(
            f"by whitened, {conv}", lambda energy, conv=conv: hc.LowRank(energy=energy, conv=conv), ENERGIES
        )
    yield Way("sampled columns", lambda share: hc.Sampled(share=share), SHARES)
