"""Libraries for TVM on ARM, inputs, and what the same models' libraries give on this machine: what ARM must match.

python -m tools.arm.libraries FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

import hashcompile as hc
from benchmarks.zoo import imagenet, minilm
from benchmarks.zoo.cifar import ResNet
from hashcompile import demo
from hashcompile.core.method import Compute
from hashcompile.core.signature import Batch
from hashcompile.lower.tvm_library import runner
from tests.models import Attention

COMPUTES: tuple[Compute, ...] = ("int8", "float")


class Subject(NamedTuple):
    name: str
    model: nn.Module
    known: list[Batch]  # to calibrate with; the first is the example
    new: Batch  # to compare with
    dynamic_shapes: Any = None
    fitted: bool = (
        True  # are the codes fitted to what is known? Else ranges of activations are measured, no more.
    )


def subjects() -> Iterator[Subject]:
    digits = demo.load_digits()
    known = [(images,) for images in digits.train_images[:256].split(16)]
    yield Subject("digits", demo.train(digits), known, (digits.test_images[:64],))
    torch.manual_seed(0)
    images = torch.randn(34, 3, 32, 32)
    known = [(batch,) for batch in images[2:].split(16)]
    yield Subject("resnet20", ResNet(20).eval(), known, (images[:2],))
    ids = torch.randint(90, (36, 12))
    transformer = nn.Sequential(nn.Embedding(90, 32), Attention(), Attention(), nn.Linear(32, 40))
    yield Subject("transformer", transformer.eval(), [(batch,) for batch in ids[4:].split(16)], (ids[:4],))
    known = [(imagenet.images(2, 64, seed),) for seed in (1, 2)]
    mobilenet = imagenet.load("mobilenet_v2")  # random weights: nothing to fit
    yield Subject("mobilenet_v2", mobilenet, known, (imagenet.images(1, 64),), fitted=False)
    yield sentence_encoder()


def sentence_encoder() -> Subject:
    """The real all-MiniLM-L6-v2, on tokens of which some are padding."""
    ids = torch.randint(1000, 2000, (8, 12))
    mask = (torch.arange(12) < torch.tensor([[12], [9], [5], [11]] * 2)).long()
    shapes = tuple(minilm.DYNAMIC.values())
    return Subject("minilm", minilm.load(), [(ids[2:], mask[2:])], (ids[:2], mask[:2]), shapes, fitted=False)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, model, known, new, shapes, fitted in subjects():
        for compute in COMPUTES:
            example = tuple(each[:2] for each in known[0])
            compiled = hc.compile(
                model,
                example,
                calibration=known if fitted else None,
                dynamic_shapes=shapes,
                compute=compute,
            )
            if not fitted:
                compiled = compiled.calibrate(known)
            path = folder / f"{name}_{compute}.so"
            compiled.export_tvm(path, target="arm64")
            with TemporaryDirectory() as here:
                compiled.export_tvm(Path(here) / path.name)
                (wanted,) = runner(Path(here) / path.name)(new)
            inputs = {f"input_{i}": value.numpy() for i, value in enumerate(new)}
            np.savez(path.with_suffix(".npz"), wanted=wanted.numpy(), **inputs)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
