"""ONNX Runtime's `quantize_dynamic`: weights int8 by channel, activations quantised while the model runs."""

from __future__ import annotations

from pathlib import Path

from contest.peer import stock
from contest.subject import Subject

from .onnxruntime_clean import clean_file


def prepare(subject: Subject, folder: Path) -> list[str]:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    clean = clean_file(subject, folder)
    quantize_dynamic(clean, folder / "model.onnx", per_channel=True, weight_type=QuantType.QInt8)
    clean.unlink()
    return ["model.onnx"]


PEER = stock("ort int8 dynamic", "quantize_dynamic", prepare)
