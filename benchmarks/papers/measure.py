"""One network made smaller in one way: what it computes, what it still knows, and how fast it is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import hashcompile as hc
from hashcompile.bench import Settings, bench, contenders
from hashcompile.bench_inputs import Sizes
from hashcompile.core.console import progress
from hashcompile.core.pq_index import pq_index

from .kept import Kept, Record
from .subjects import Subject
from .train import top1, train
from .ways import Way

CALIBRATION = 512
BATCHES = (1, 32)  # for latency


@dataclass(frozen=True)
class Point:
    """Shares are of the whole network's."""

    way: str
    strength: float
    macs: float
    parameters: float
    before: float  # top-1 in percent, not fine-tuned
    after: float | None  # fine-tuned
    index: float | None = None  # PQ index of the weights that are left, in the end

    @property
    def accuracy(self) -> float:
        """Top-1 in the end."""
        return self.before if self.after is None else self.after


def reduced(subject: Subject, config: object) -> hc.CompiledModel:
    return hc.compile(
        subject.model,
        (subject.test[0][:2],),
        method=config,
        calibration=subject.calibration(CALIBRATION),
        compute="float",
    )


def point(
    subject: Subject,
    way: Way,
    strength: float,
    epochs: float,
    taught: bool = False,
    *,
    keep: Path | None = None,
) -> Point:
    """taught: fine-tuned to the whole network's outputs instead of labels. keep: a file from which that goes on."""
    compiled = reduced(subject, way.config(strength))
    made = compiled.plan.reshaping
    assert made is not None
    before = top1(compiled, *subject.test)
    after = None
    if epochs:
        train(
            compiled.graph_module,
            *subject.train,
            epochs=epochs,
            rate=subject.rate,
            keep=keep,
            moved=subject.moved,
            teacher=subject.model if taught else None,
        )
        after = top1(compiled, *subject.test)
    macs, parameters = made.after.macs / made.before.macs, made.after.parameters / made.before.parameters
    return Point(way.name, strength, macs, parameters, before, after, index_of(compiled.graph_module))


def measured(kept: Kept, way: str, strength: float, measure: Callable[..., Point]) -> Point:
    """The point that is kept, or was measured now, by `measure(keep=file)`."""
    key = {"way": way, "strength": strength}
    return Point(**kept.once(key, lambda: asdict(measure(keep=kept.training(key)))))


def run(
    given: Subject, todo: Sequence[tuple[Way, float]], epochs: float, kept: Kept, taught: bool = False
) -> list[Point]:
    with progress(given.name, len(todo)) as bar:
        found = []
        for way, each in todo:
            found.append(measured(kept, way.name, each, partial(point, given, way, each, epochs, taught)))
            bar.advance()
    return found


def weights_cut(subject: Subject, share: float, epochs: float, *, keep: Path | None = None) -> Point:
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
        train(
            model,
            *subject.train,
            epochs=epochs,
            rate=subject.rate,
            masks=masks,
            keep=keep,
            moved=subject.moved,
        )
        after = top1(model, *subject.test)
    return Point("weights", share, 1.0, 1 - share, before, after, index_of(model))


def index_of(model: nn.Module) -> float | None:
    """The mean over all weights that multiply, each layer's index counting as often as it has entries left."""
    left = [each[each != 0] for each in (p.detach().flatten() for p in model.parameters() if p.ndim > 1)]
    count = sum(map(len, left))
    return sum(len(each) * pq_index(each) for each in left) / count if count else None


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
    subject: Subject,
    chosen: Sequence[tuple[Way, float]],
    folder: Path,
    threads: int,
    runs: int,
    kept: Kept,
) -> list[Latency]:
    """Files of the float graph, one sample and 32 of them."""
    whole, part = folder / f"{subject.name}.onnx", folder / f"{subject.name}_part.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    dense(subject.model, subject.test[0][:2]).export_onnx(whole)
    found = []
    with progress(f"{subject.name}, latency", len(chosen)) as bar:
        for way, strength in chosen:
            key = {"way": way.name, "strength": strength}
            pair = kept.once(key, partial(raced, subject, way, strength, whole, part, threads, runs))
            found += [Latency(**key, macs=pair["macs"], **each) for each in pair["batches"]]
            bar.advance()
    return found


def raced(
    subject: Subject, way: Way, strength: float, whole: Path, part: Path, threads: int, runs: int
) -> Record:
    """The reduced network in the file `part`, in turns with the whole one."""
    compiled = reduced(subject, way.config(strength))
    made = compiled.plan.reshaping
    assert made is not None
    compiled.export_onnx(part)
    batches = []
    for batch in BATCHES:
        settings = Settings(threads, runs, Sizes(batch))
        first, second = bench(contenders([whole, part]), settings)
        batches.append({"batch": batch, "time": second.ratio, "whole_ms": first.p50_ms, "ms": second.p50_ms})
    return {"macs": made.after.macs / made.before.macs, "batches": batches}


def dense(model: nn.Module, example: Tensor) -> hc.CompiledModel:
    """The whole network by the same way into a file."""
    return hc.compile(model, (example,), method=hc.PruneChannels(amount=0), compute="float")
