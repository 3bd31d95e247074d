"""A network against every peer, where only speed and size are in question."""

from __future__ import annotations

from collections.abc import Iterator

from contest.prepared import prepared
from contest.subject import Subject
from peers import ours
from peers.onnxruntime_fp32 import fp32_file

from .claims import Claim, agreement, size
from .setting import Setting


def race(given: Subject, setting: Setting, target: float | None = None) -> Iterator[Claim]:
    """target: times as fast as the fastest peer, in every case; None promises nothing."""
    build = setting.run.settings.build
    ready, fp32 = prepared(ours.PEER, given, build), fp32_file(given, build)
    for check in ours.checks(ready):
        yield agreement(given.name, check)
    yield size(given.name, "file", fp32.stat().st_size, ready.file_bytes)
    setting.run.measure(given, ready.file_bytes, dict.fromkeys(given.cases, target) if target else None)
