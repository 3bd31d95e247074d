"""Real models, compiled: what they lose, what they weigh, how fast they are, beside what was promised.

    python benchmarks/models.py [minilm] [cifar] [stories] [--threads 2] [--quick] [--json FILE]

Each line compares our ONNX file, run with our library, to the fp32 model: accuracy on data that calibration
has not seen, bytes on disk, and latency in interleaved turns of one process each, on as many threads.
"""

from __future__ import annotations

import tempfile
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated

import torch
import typer
from trials.claims import Claim, as_table, write_json
from trials.setting import Setting
from zoo.data import MissingDataError

from hashcompile.core.console import show


class Trial(StrEnum):
    minilm = "minilm"
    cifar = "cifar"
    stories = "stories"


def main(
    trials: Annotated[list[Trial] | None, typer.Argument(help="Which models; all, if none is named.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="For both files, and for calibration.")] = 2,
    quick: Annotated[bool, typer.Option("--quick", help="Less data: seconds instead of minutes.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the figures there too.")] = None,
) -> None:
    """Compile real models and hold the results against what was promised."""
    torch.set_num_threads(threads)
    claims: list[Claim] = []
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(threads, quick, Path(folder))
        for name in trials or list(Trial):
            before = len(claims)
            try:
                for claim in import_module(f"trials.{name}").trial(setting):
                    claims.append(claim)
            except MissingDataError as error:
                show(f"skipped {name}: {error}")
            finally:  # what was measured before an interrupt is worth reading
                show(as_table(claims[before:]), "")
    if json:
        write_json(json, claims, threads)


if __name__ == "__main__":
    typer.run(main)
