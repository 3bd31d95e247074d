"""Real models, compiled: what they lose, what they weigh, and how fast they are beside every peer.

    python benchmarks/models.py [minilm] [resnet50] [resnet18] [mobilenet_v2] [digits] [resnet20]
                                [cifar] [stories]
                                [--quick] [--threads 1 --threads 2] [--only NAME] [--peers 'openvino*'] [--out DIR]

README.md beside this file says what every figure means.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import torch
import typer
from contest.limits import Machine
from contest.prepared import BUILD
from contest.run import Run
from contest.standings import Settings, one_line
from peers.registry import chosen
from trials.claims import Claim, as_json, as_table
from trials.registry import Trial, start
from trials.setting import Setting
from zoo.data import MissingDataError

from hashcompile.core.console import show


def main(
    trials: Annotated[list[Trial] | None, typer.Argument(help="Which models; all, if none is named.")] = None,
    only: Annotated[list[Trial] | None, typer.Option(help="The same, as an option; repeatable.")] = None,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Repeatable; 1 and 2 by default.")] = None,
    peers: Annotated[list[str] | None, typer.Option(help="Glob over peers; repeatable.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every contender on every case.")] = 5,
    turn: Annotated[float, typer.Option(min=0.001, help="Seconds of a turn.")] = 0.4,
    quick: Annotated[bool, typer.Option("--quick", help="Less data, fewer and shorter turns.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for models.json and models.png.")] = BUILD,
) -> None:
    """Compile real models and hold the results against what was promised, and against every peer."""
    counts = tuple(threads or (1, 2))
    torch.set_num_threads(max(counts))
    run = Run(
        Settings(counts, 2 if quick else rounds, 0.1 if quick else turn), chosen(peers or ()), Machine(BUILD)
    )
    claims: list[Claim] = []
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(max(counts), quick, Path(folder), run)
        try:
            for name in trials or only or list(Trial):
                before = len(claims)
                try:
                    for claim in start(name, setting):
                        claims.append(claim)
                except MissingDataError as error:
                    show(f"skipped {name}: {error}")
                except ImportError as error:
                    show(f"skipped {name}: {one_line(error)}; the extra `benchmarks` has what is needed")
                finally:  # what was measured before an interrupt is worth reading
                    show(as_table(claims[before:]), "")
        finally:
            run.tell()
            run.write(out, "models", claims=as_json(claims))


if __name__ == "__main__":
    typer.run(main)
