"""hashcompile: every encodable weight a codebook of 4 bits, int8 arithmetic, our library registered."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

from contest.peer import ONNX_ENGINE, OURS, Peer
from contest.prepared import Prepared
from contest.subject import Subject

import hashcompile as hc
from hashcompile import passes
from hashcompile.verify import Check

SOURCES = (Path(str(files(hc))), Path(str(files(passes))))


def compiled(subject: Subject) -> hc.CompiledModel:
    samples = [dict(sample) for sample in subject.samples()]
    model = hc.compile(
        subject.model,
        dict(subject.example),
        method=hc.Codebook(bits=4),
        calibration=samples if subject.fitted else None,
        dynamic_shapes=subject.dynamic_shapes,
        compute="int8",
    )
    return model if subject.fitted else model.calibrate(samples)  # the ranges of activations only: seconds


def prepare(subject: Subject, folder: Path) -> list[str]:
    """The file, and beside it the model itself, model.hc, and what was said of it: report.txt, checks.json."""
    model = compiled(subject)
    model.save(folder / "model.hc")
    checks = model.export_onnx(folder / "model.onnx")
    (folder / "report.txt").write_text(str(model.report()))
    (folder / "checks.json").write_text(json.dumps([asdict(check) for check in checks]))
    return ["model.onnx"]


def made(ready: Prepared) -> hc.CompiledModel:
    """What the file was exported from."""
    return hc.load(ready.files[0].with_name("model.hc"))


def report(ready: Prepared) -> str:
    """Layer by layer, what was done."""
    return ready.files[0].with_name("report.txt").read_text()


def checks(ready: Prepared) -> list[Check]:
    """How far the file was from the compressed graph when it was made."""
    return [Check(**fields) for fields in json.loads(ready.files[0].with_name("checks.json").read_text())]


PEER = Peer(
    OURS,
    "hashcompile, 4-bit codebooks, int8 arithmetic",
    ("hashcompile", "onnxruntime"),
    ONNX_ENGINE,
    prepare,
    {"library": True},
    SOURCES,
)
