"""Libraries for TVM on ARM, inputs, and what the same models' libraries give on this machine: what ARM must match.

python -m tools.arm.libraries FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

import hashcompile as hc
from benchmarks.zoo.cifar import ResNet
from hashcompile import demo
from hashcompile.core.method import Compute
from hashcompile.lower.tvm_library import runner
from tests.models import Attention

COMPUTES: tuple[Compute, ...] = ("int8", "float")


def subjects() -> Iterator[tuple[str, nn.Module, Tensor, Tensor]]:
    """Name, model, inputs to calibrate with (B, ...), inputs to compare with."""
    digits = demo.load_digits()
    yield "digits", demo.train(digits), digits.train_images[:256], digits.test_images[:64]
    torch.manual_seed(0)
    images = torch.randn(34, 3, 32, 32)
    yield "resnet20", ResNet(20).eval(), images[2:], images[:2]
    ids = torch.randint(90, (36, 12))
    transformer = nn.Sequential(nn.Embedding(90, 32), Attention(), Attention(), nn.Linear(32, 40))
    yield "transformer", transformer.eval(), ids[4:], ids[:4]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, model, known, new in subjects():
        for compute in COMPUTES:
            compiled = hc.compile(
                model, (known[:2],), calibration=[(batch,) for batch in known.split(16)], compute=compute
            )
            path = folder / f"{name}_{compute}.so"
            compiled.export_tvm(path, target="arm64")
            with TemporaryDirectory() as here:
                compiled.export_tvm(Path(here) / path.name)
                (wanted,) = runner(Path(here) / path.name)((new,))
            np.savez(path.with_suffix(".npz"), inputs=new.numpy(), wanted=wanted.numpy())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
