"""OpenVINO with compressed weights: `nncf.compress_weights`, int8 by channel or int4 in groups of 128."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from contest.peer import OPENVINO_ENGINE, NotApplicableError, Peer
from contest.subject import Subject

from .openvino_plain import convert, save

GROUP = 128


def prepare(subject: Subject, folder: Path, mode: str) -> list[str]:
    import nncf

    if subject.kind == "convolution" and mode.startswith("INT4"):
        raise NotApplicableError("nncf.compress_weights leaves convolutions out at 4 bits")
    whole = {"ratio": 1.0, "group_size": GROUP, "all_layers": True} if mode.startswith("INT4") else {}
    return save(nncf.compress_weights(convert(subject), mode=nncf.CompressWeightsMode[mode], **whole), folder)


def peer(name: str, mode: str) -> Peer:
    what = f"OpenVINO, nncf.compress_weights {mode}"
    return Peer(name, what, ("openvino", "nncf"), OPENVINO_ENGINE, partial(prepare, mode=mode))


PEERS = (
    peer("openvino int8 w", "INT8_SYM"),
    peer("openvino int4 sym", "INT4_SYM"),
    peer("openvino int4 asym", "INT4_ASYM"),
)
