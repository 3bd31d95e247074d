"""CIFAR-10 ResNets at 4, 3 and 2 bits, not fine-tuned: top-1."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from zoo import cifar
from zoo.artifacts import export_fp32, forward, stock

import hashcompile as hc
import hashcompile_runtime as hcrt
from hashcompile.core.console import progress

from .claims import Claim, accuracy, agreement, size
from .setting import Setting, speed

MAY_LOSE = {4: 0.5, 3: 1.5, 2: 5.0}  # points of top-1, by bits


def trial(setting: Setting) -> Iterator[Claim]:
    calibration = [(images,) for images in cifar.images("train", count=1_024).inputs.split(128)]
    test = cifar.images("test", count=1_000 if setting.quick else None)
    for depth in (20,) if setting.quick else (20, 56):
        model, example = cifar.load(depth), (test.inputs[:2],)
        fp32 = setting.folder / f"resnet{depth}_fp32.onnx"
        export_fp32(model, example, ({0: torch.export.Dim("batch")},), fp32)
        before = top1(forward(stock(fp32, setting.threads)), test)
        for bits, may_lose in MAY_LOSE.items():
            method = hc.Codebook(bits=bits)
            compiled = hc.compile(model, example, method=method, calibration=calibration, compute="int8")
            ours = setting.folder / f"resnet{depth}_{bits}bit.onnx"
            name = f"ResNet-{depth}, {bits} bits"
            for check in compiled.export_onnx(ours):
                yield agreement(name, check)

            after = top1(forward(hcrt.session(ours, threads=setting.threads)), test)
            yield accuracy(name, f"top-1 of {len(test.labels)} test images", before, after, may_lose)
            yield size(name, "file", fp32.stat().st_size, ours.stat().st_size)
            for batch in (1, 32):
                race = setting.race(fp32, ours, (test.inputs[:batch],))
                yield speed(name, f"latency, batch {batch}", race)


def top1(model: Callable[..., torch.Tensor], test: cifar.Images) -> float:
    """Percent of the images classified right."""
    hits, chunks = 0, test.inputs.split(250)
    with progress("classifying", len(chunks)) as bar:
        for images, labels in zip(chunks, test.labels.split(250), strict=True):
            hits += int((model(images).argmax(dim=1) == labels).sum())
            bar.advance()
    return 100 * hits / len(test.labels)
