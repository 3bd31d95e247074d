"""One network made smaller in one way: what it computes, what it still knows, and how fast it is."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import hashcompile as hc
from hashcompile.bench import Contender, Settings, bench

from .subjects import Subject
from .train import top1, train
from .ways import Way

CALIBRATION = 512


@dataclass(frozen=True)
class Point:
    """Shares are of the whole network's."""

    way: str
    strength: float
    macs: float
    parameters: float
    before: float  # top-1 in percent, not fine-tuned
    after: float | None  # fine-tuned


def reduced(subject: Subject, config: object) -> hc.CompiledModel:
    return hc.compile(
        subject.model,
        (subject.test[0][:2],),
        method=config,
        calibration=subject.calibration(CALIBRATION),
        compute="float",
    )


def point(subject: Subject, way: Way, strength: float, epochs: float) -> Point:
    compiled = reduced(subject, way.config(strength))
    made = compiled.plan.reshaping
    assert made is not None
    before = top1(compiled, *subject.test)
    after = None
    if epochs:
        train(compiled.graph_module, *subject.train, epochs=epochs, rate=subject.rate, moved=subject.moved)
        after = top1(compiled, *subject.test)
    macs, parameters = made.after.macs / made.before.macs, made.after.parameters / made.before.parameters
    return Point(way.name, strength, macs, parameters, before, after)


def weights_cut(subject: Subject, share: float, epochs: float) -> Point:
    """The smallest `share` of the entries of every weight become zero: nothing gets faster, this is the yardstick."""
    model = copy.deepcopy(subject.model)
    masks = {}
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            masks[name] = smallest_zero(weight.detach(), share)
            weight.data *= masks[name]
    before = top1(model, *subject.test)
    after = None
    if epochs:
        train(model, *subject.train, epochs=epochs, rate=subject.rate, masks=masks, moved=subject.moved)
        after = top1(model, *subject.test)
    return Point("weights", share, 1.0, 1 - share, before, after)


def smallest_zero(weight: Tensor, share: float) -> Tensor:
    """1 where an entry stays, else 0."""
    order = weight.abs().flatten().argsort()
    mask = torch.ones(weight.numel())
    mask[order[: round(share * len(order))]] = 0
    return mask.view_as(weight)


@dataclass(frozen=True)
class Latency:
    """In ONNX Runtime as it comes, both files in turns."""

    way: str
    strength: float
    batch: int
    macs: float  # share of the whole network's
    time: float  # likewise
    whole_ms: float
    ms: float

    @property
    def verdict(self) -> str:
        if self.time > 0.97:
            return "fewer FLOPs, not faster"
        return "faster, by less than the FLOPs" if self.time > self.macs + 0.05 else "faster, as the FLOPs"


def latencies(
    subject: Subject, chosen: Sequence[tuple[Way, float]], folder: Path, threads: int, runs: int
) -> list[Latency]:
    """Files of the float graph, one sample and 32 of them."""
    whole = folder / f"{subject.name}.onnx"
    dense(subject.model, subject.test[0][:2]).export_onnx(whole)
    found = []
    for position, (way, strength) in enumerate(chosen):
        compiled = reduced(subject, way.config(strength))
        made = compiled.plan.reshaping
        assert made is not None
        path = folder / f"{subject.name}_{position}.onnx"
        compiled.export_onnx(path)
        for batch in (1, 32):
            settings = Settings(threads=threads, runs=runs, batch=batch)
            first, second = bench([Contender(whole, False), Contender(path, False)], settings)
            macs = made.after.macs / made.before.macs
            found.append(Latency(way.name, strength, batch, macs, second.ratio, first.p50_ms, second.p50_ms))
    return found


def dense(model: nn.Module, example: Tensor) -> hc.CompiledModel:
    """The whole network by the same way into a file."""
    return hc.compile(model, (example,), method=hc.PruneChannels(amount=0), compute="float")
