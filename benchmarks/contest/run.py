"""What both benchmarks do with their subjects: measure, bound, tell, write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from zoo.single import write_empty

from hashcompile.core.console import show

from . import memory, plot, report
from .figures import Figure, figures
from .limits import Bound, Machine, NoProbeError
from .memory import Footprint, empty_session, footprint
from .peer import OURS, Peer
from .prepared import prepared
from .standings import Settings, Standing, contest
from .subject import Subject


@dataclass
class Run:
    """One run of a benchmark: its settings, and all that was measured so far."""

    settings: Settings
    peers: Sequence[Peer]
    machine: Machine
    standings: list[Standing] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    footprints: list[Footprint] = field(default_factory=list)

    def measure(
        self, subject: Subject, weight_bytes: int, at_least: Mapping[str, float] | None = None
    ) -> list[Figure]:
        """All peers on `subject`. `weight_bytes`: what ours reads of its weights in one inference."""
        found = contest(subject, self.peers, self.settings)
        bounds = self._bounds(subject, weight_bytes)
        concluded = list(figures(found, dict(at_least or {}), bounds))
        self.standings += found
        self.figures += concluded
        self._weigh(subject, found)
        return concluded

    def _weigh(self, subject: Subject, found: Sequence[Standing]) -> None:
        for peer, line in product(self.peers, found):
            if line.peer == peer.name == OURS and line.resident_bytes is not None:
                file = prepared(peer, subject, self.settings.build).files[0]
                self.footprints += filter(None, [footprint(file, line, self._empty)])
                return

    @cached_property
    def _empty(self) -> int:
        file = self.settings.build / "empty.onnx"
        write_empty(file)
        return empty_session(file, self.settings.threads[0])

    def _bounds(self, subject: Subject, weight_bytes: int) -> dict[tuple[str, str, int], Bound]:
        try:
            return {
                (subject.name, case, threads): self.machine.bound(weight_bytes, subject.macs(case), threads)
                for case in subject.cases
                for threads in self.settings.threads
            }
        except NoProbeError as error:
            show(f"no limits: {error}")
            return {}

    def tell(self) -> None:
        """The tables, subject by subject, and then the figures of all."""
        for name in dict.fromkeys(line.subject for line in self.standings):
            show(report.times_table([line for line in self.standings if line.subject == name]), "")
        for reason in report.reasons(self.standings):
            show(f"no figures: {reason}")
        if self.figures:
            show("", report.figures_table(self.figures), "")
        if self.footprints:
            show(memory.as_table(self.footprints), "")

    def write(self, folder: Path, name: str, **more: Any) -> None:
        """`name`.json and `name`.png in `folder`."""
        settings = {
            "threads": self.settings.threads,
            "rounds": self.settings.rounds,
            "turn_seconds": self.settings.seconds,
            "peers": {peer.name: peer.what for peer in self.peers},
        }
        limits = self.machine.facts()
        report.write_json(
            folder / f"{name}.json",
            report.document(
                settings,
                self.standings,
                self.figures,
                footprints=[asdict(line) | {"own": line.own} for line in self.footprints],
                limits=limits,
                **more,
            ),
        )
        plot.plot(folder / f"{name}.png", self.figures, name)
        show(f"written to {folder}: {name}.json" + (f", {name}.png" if self.figures else ""))
