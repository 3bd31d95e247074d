"""What a user has without any compression: PyTorch's own ONNX export."""

from __future__ import annotations

from pathlib import Path

from contest.peer import stock
from contest.prepared import BUILD, prepared
from contest.subject import Subject
from zoo.artifacts import export_fp32


def prepare(subject: Subject, folder: Path) -> list[str]:
    export_fp32(subject.model, dict(subject.example), subject.dynamic_shapes, folder / "model.onnx")
    return ["model.onnx"]


PEER = stock("ort fp32", "fp32", prepare)


def fp32_file(subject: Subject, build: Path = BUILD) -> Path:
    """The file that other peers quantise."""
    return prepared(PEER, subject, build).files[0]
