"""How all trials are run, and the race between two files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from contest.run import Run
from zoo.artifacts import Inputs, stock

from hashcompile.bench import Result, Settings, bench, contenders
from hashcompile.bench_inputs import Sizes

from .claims import Claim


@dataclass(frozen=True)
class Setting:
    threads: int
    quick: bool  # a tenth of the data, fewer networks: minutes become seconds, and figures become rough
    folder: Path  # for the files
    run: Run  # all peers, for the trials that race against them

    def some(self, count: int) -> int:
        return count // 10 if self.quick else count

    def race(self, fp32: Path, ours: Path, inputs: Inputs) -> list[Result]:
        """Both files on the same inputs, in turns: [fp32, ours]."""
        names = [node.name for node in stock(fp32, 1).get_inputs()]
        values = inputs.values() if isinstance(inputs, dict) else inputs
        arrays = self.folder / "inputs.npz"
        np.savez(arrays, **{name: value.numpy() for name, value in zip(names, values, strict=True)})
        settings = Settings(self.threads, self.some(100), Sizes(inputs=arrays))
        return bench(contenders([fp32, ours]), settings)


def speed(model: str, what: str, results: list[Result], at_least: float | None = None) -> Claim:
    """Median latencies of a race; the figure is the ratio of the two."""
    fp32, ours = results
    return Claim(
        model, what, "ms", fp32.p50_ms, ours.p50_ms, 1 / ours.ratio, "{:.2f} x as fast", at_least=at_least
    )
