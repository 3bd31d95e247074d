"""The ratio that counts: the fastest peer over ours, on one case."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from .limits import Bound
from .peer import CALL, OURS
from .standings import Standing


@dataclass(frozen=True)
class Figure:
    """Ours against the fastest peer. `ratio` is of the medians over all rounds, `low` and `high` those of a round."""

    subject: str
    case: str
    threads: int
    ours_ms: float
    fastest: str
    fastest_ms: float
    ratio: float  # above 1: ours is faster
    low: float
    high: float
    at_least: float | None = None
    bound: Bound | None = None  # the time that the machine needs at least
    call_ms: float | None = None

    @property
    def kept(self) -> bool | None:
        """None where nothing was promised."""
        return None if self.at_least is None else self.ratio >= self.at_least

    @property
    def net_ratio(self) -> float | None:
        """The ratio without the call, where both have paid it."""
        if self.call_ms is None or not self.fastest.startswith("ort ") or self.ours_ms <= self.call_ms:
            return None
        return (self.fastest_ms - self.call_ms) / (self.ours_ms - self.call_ms)

    @property
    def of_limit(self) -> float | None:
        """The share of the machine's speed that ours reaches, 1 at most."""
        return self.bound.milliseconds / self.ours_ms if self.bound else None


def speed_ratio(ours: Standing, peer: Standing) -> tuple[float, float, float]:
    """(of the medians, least of a round, most of a round) of peer over ours."""
    by_round = [theirs / mine for mine, theirs in zip(ours.rounds_ms, peer.rounds_ms, strict=True)]
    return peer.median_ms / ours.median_ms, min(by_round), max(by_round)


def figures(
    standings: Iterable[Standing], at_least: dict[str, float], bounds: dict[tuple[str, str, int], Bound]
) -> Iterator[Figure]:
    """One for each case that ours and a peer finished. `at_least` is by case; `bounds` by subject, case, threads."""
    places: dict[tuple[str, str, int], dict[str, Standing]] = {}
    for line in standings:
        places.setdefault((line.subject, line.case, line.threads), {})[line.peer] = line
    for place, group in places.items():
        finished = {peer: line for peer, line in group.items() if line.rounds_ms}
        ours = finished.pop(OURS, None)
        call = finished.pop(CALL, None)
        if ours is None or not finished:
            continue
        fastest = min(finished.values(), key=lambda line: median(line.rounds_ms))
        times = ours.median_ms, fastest.peer, fastest.median_ms
        target = at_least.get(ours.case)
        call_ms = call.median_ms if call else None
        yield Figure(*place, *times, *speed_ratio(ours, fastest), target, bounds.get(place), call_ms)
