"""OpenVINO as it comes: the conversion's defaults, and on a CPU with bf16 it computes in bf16 by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contest.peer import OPENVINO_ENGINE, Peer
from contest.subject import Subject

from .onnxruntime_fp32 import fp32_file


def convert(subject: Subject) -> Any:
    """An `openvino.Model` of the fp32 export."""
    import openvino as ov

    return ov.convert_model(fp32_file(subject))


def save(model: Any, folder: Path) -> list[str]:
    import openvino as ov

    ov.save_model(model, folder / "model.xml")
    return ["model.xml", "model.bin"]


def prepare(subject: Subject, folder: Path) -> list[str]:
    return save(convert(subject), folder)


PEER = Peer("openvino", "OpenVINO as it comes", ("openvino",), OPENVINO_ENGINE, prepare)
