"""What a peer is: a way to prepare a model, and an engine that runs what was prepared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hashcompile.bench import ENGINES

from .subject import Subject

OURS = "ours"
CALL = "call alone"  # no peer: what calling ONNX Runtime costs, which is in every time of its sessions

ONNX_ENGINE, TVM_ENGINE = ENGINES["onnx"], ENGINES["tvm"]
_ENGINES = Path(__file__).parents[1] / "peers" / "engines"
OPENVINO_ENGINE = _ENGINES / "openvino_engine.py"
TORCH_ENGINE = _ENGINES / "torch_engine.py"
TVM_SIZES_ENGINE = _ENGINES / "tvm_sizes_engine.py"

__all__ = [
    "ONNX_ENGINE",
    "OPENVINO_ENGINE",
    "TORCH_ENGINE",
    "TVM_ENGINE",
    "TVM_SIZES_ENGINE",
    "NotApplicableError",
    "Peer",
    "stock",
]


class NotApplicableError(Exception):
    """The peer has nothing for a model of this kind; says why."""


@dataclass(frozen=True)
class Peer:
    """`prepare(subject, folder)` writes files into `folder` and names them, the model's first.

    It imports what it needs inside: a peer that is not installed is a row that says so.
    """

    name: str
    what: str  # for the reader of a table
    needs: tuple[str, ...]  # distributions, whose versions are part of the result
    engine: Path  # run in the worker: hashcompile/bench_worker.py says what it defines
    prepare: Callable[[Subject, Path], list[str]]
    options: Mapping[str, Any] = field(default_factory=dict)  # the engine's own
    sources: tuple[Path, ...] = ()  # code outside the benchmarks that decides what is prepared


def stock(name: str, what: str, prepare: Callable[[Subject, Path], list[str]]) -> Peer:
    """A peer whose file runs in ONNX Runtime as it comes."""
    return Peer(
        name, f"ONNX Runtime, {what}", ("onnxruntime", "onnx"), ONNX_ENGINE, prepare, {"library": False}
    )
