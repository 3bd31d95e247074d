"""OpenVINO, post-training int8: `nncf.quantize`, weights and activations, calibrated."""

from __future__ import annotations

from pathlib import Path

from contest.peer import OPENVINO_ENGINE, Peer
from contest.subject import Inputs, Subject

from .openvino_plain import convert, save


def prepare(subject: Subject, folder: Path) -> list[str]:
    import nncf

    def arrays(sample: Inputs) -> dict[str, object]:
        return {name: value.numpy() for name, value in sample.items()}

    samples = subject.samples()
    transformer = subject.kind == "matmul" and len(subject.example) > 1
    quantised = nncf.quantize(
        convert(subject),
        nncf.Dataset(samples, arrays),
        subset_size=len(samples),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
    )
    return save(quantised, folder)


PEER = Peer("openvino int8", "OpenVINO, nncf.quantize", ("openvino", "nncf"), OPENVINO_ENGINE, prepare)
