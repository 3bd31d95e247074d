"""ONNX Runtime's `quantize_static` as QDQ: weights int8 by channel, activations uint8 with calibrated ranges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from contest.peer import stock
from contest.subject import Inputs, Subject

from .onnxruntime_clean import clean_file


class Reader:
    """Calibration data, as ONNX Runtime asks for it."""

    def __init__(self, samples: Sequence[Inputs]) -> None:
        self._feeds: Iterator[dict[str, Any]] = (
            {name: value.numpy() for name, value in sample.items()} for sample in samples
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def prepare(subject: Subject, folder: Path) -> list[str]:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    clean = clean_file(subject, folder)
    quantize_static(
        clean,
        folder / "model.onnx",
        Reader(subject.samples()),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,  # the pair that x86 multiplies in one instruction
        weight_type=QuantType.QInt8,
    )
    clean.unlink()
    return ["model.onnx"]


PEER = stock("ort int8 static", "quantize_static, QDQ, calibrated", prepare)
