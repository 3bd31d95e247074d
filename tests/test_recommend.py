"""Advice is what the figures say: the first criterion that tells the files apart decides, and the others are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import hashcompile as hc
from hashcompile.bench import Result, Settings
from hashcompile.core.errors import ConfigError, ExportError, InputError, VerificationError
from hashcompile.lower import with_tvm
from hashcompile.recommend import FILES, HOST_TELLS, Criterion, Format, Ways, decide, recommend
from tests.models import build, normal

ROW = Result("model.onnx", "hashcompile", 1000, 10.0, 2.0, 5000, 1.0, 1.1, 1.2, 1.0, 200, {"x": [1, 128]})
QUICK = Settings(threads=1, runs=10)


@pytest.mark.parametrize(
    ("change", "prefer", "winner", "first"),
    [
        (
            {"p50_ms": 0.8},
            "latency",
            "tvm",
            "latency, p50 decides: 0.8000 ms, model.onnx 1.0000 ms, 1.25x less",
        ),
        (
            {"p50_ms": 1.5},
            "latency",
            "onnx",
            "latency, p50 decides: 1.0000 ms, model.so 1.5000 ms, 1.50x less",
        ),
        (
            {"p50_ms": 0.96},
            "latency",
            "onnx",
            "nothing differs by more than 5%, and any ONNX Runtime runs it",
        ),
        ({"p50_ms": 0.96, "resident_bytes": 2500}, "latency", "tvm", "latency, p50: no difference"),
        (
            {"p50_ms": 0.5, "file_bytes": 2000},
            "size",
            "onnx",
            "size on disk decides: 1.00 kB, model.so 2.00 kB",
        ),
        ({"p50_ms": 2.0, "resident_bytes": 2500}, "memory", "tvm", "resident memory decides: 2.50 kB"),
        ({"p50_ms": 2.0, "load_ms": 5.0}, "load", "tvm", "cold load decides: 5.0 ms, model.onnx 10.0 ms"),
        ({"resident_bytes": 0}, "latency", "tvm", "latency, p50: no difference"),
    ],
)
def test_what_decides(change: dict[str, float], prefer: Criterion, winner: Format, first: str) -> None:
    other = replace(ROW, file="model.so", runtime="tvm", **change)
    for results in ({"onnx": ROW, "tvm": other}, {"tvm": other, "onnx": ROW}):
        got, reasons = decide(results, prefer)
        assert got == winner
        assert reasons[0].startswith(first)
        assert sum("decides" in reason for reason in reasons) == (len(reasons) > 1)


def test_what_speaks_for_and_against_it_is_told() -> None:
    other = replace(ROW, file="model.so", runtime="tvm", p50_ms=0.5, resident_bytes=2500, file_bytes=4000)
    assert decide({"onnx": ROW, "tvm": other}, "latency") == (
        "tvm",
        [
            "latency, p50 decides: 0.5000 ms, model.onnx 1.0000 ms, 2.00x less",
            "resident memory speaks for it, too: 2.50 kB, model.onnx 5.00 kB, 2.00x less",
            "size on disk speaks against it: 4.00 kB, model.onnx 1.00 kB, 4.00x more",
            "cold load: no difference (10.0 ms, model.onnx 10.0 ms)",
        ],
    )


def test_of_a_library_on_a_gpu_the_memory_of_the_host_says_nothing() -> None:
    other = replace(ROW, file="model.so", runtime="tvm", resident_bytes=2500)
    assert decide({"onnx": ROW, "tvm": other}, "latency")[0] == "tvm"
    winner, reasons = decide({"onnx": ROW, "tvm": other}, "latency", HOST_TELLS)
    assert winner == "onnx" and "memory" not in " ".join(reasons)


def refuse(error: Exception) -> Callable[[Path], object]:
    def export(path: Path) -> object:
        raise error

    return export


def test_what_cannot_be_made_is_told_and_the_other_measured_alone(write_mlp: Callable[..., Path]) -> None:
    given = {"x": np.zeros((3, 128), np.float32)}
    ways = Ways({"onnx": write_mlp, "tvm": refuse(ExportError("bessel_j0 is too much"))})
    advice = recommend(ways, given, QUICK)
    assert advice.winner == "onnx"
    assert advice.reasons == (
        "it is the only one that was measured",
        "model.so was not measured: bessel_j0 is too much",
    )
    (row,) = advice.results
    assert row.file == "model.onnx" and row.inputs == {"x": [3, 128]} and row.runs == 10
    text = str(advice)
    assert "p50 / first" in text and "ship model.onnx:\n  - it is the only one" in text

    with pytest.raises(VerificationError, match="off"):
        recommend(
            Ways({"onnx": refuse(VerificationError("off")), "tvm": refuse(ExportError("x"))}), given, QUICK
        )
    with pytest.raises(ConfigError, match="prefer='speed': wanted latency, memory, size, load"):
        recommend(ways, given, QUICK, prefer="speed")  # type: ignore[arg-type]


def test_without_tvm_a_model_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(with_tvm, "find_spec", lambda name: None)
    model, inputs = build("mlp")
    advice = hc.compile(model, inputs(2)).recommend(threads=1, runs=10, batch=5)
    assert advice.winner == "onnx"
    assert advice.results[0].inputs == {"input": [5, 50]}, "more samples than there are"
    assert advice.reasons[-1] == (
        "model.so was not measured: TVM is not installed: pip install 'hashcompile[tvm]'"
    )


def test_both_files_of_a_model_are_measured() -> None:
    pytest.importorskip("tvm", reason="TVM is not installed: pip install 'hashcompile[tvm]'")
    model, inputs = build("mlp")
    compiled = hc.compile(model, inputs(2))
    advice = compiled.recommend(inputs=normal(50)(3), threads=1, runs=10)
    assert [(row.file, row.runtime) for row in advice.results] == [
        ("model.onnx", "hashcompile"),
        ("model.so", "tvm"),
    ]
    assert all(row.inputs == {"input": [3, 50]} for row in advice.results)
    assert f"ship {FILES[advice.winner]}:" in str(advice)
    with pytest.raises(ConfigError, match="target='gpu'"):
        compiled.recommend(target="gpu")
    with pytest.raises(InputError, match="float64"):
        compiled.recommend(inputs=(inputs(2)[0].double(),))


def test_a_batch_that_the_model_does_not_take_is_refused() -> None:
    model, inputs = build("mlp")
    with pytest.raises(InputError, match="a batch of 0"):
        hc.compile(model, inputs(2)).recommend(batch=0)
    fixed = hc.compile(model, inputs(4), dynamic_batch=False)
    with pytest.raises(InputError, match="a batch of 2: the batch of the model is fixed at 4"):
        fixed.recommend(batch=2)
    for count in (None, 4):
        assert fixed.signature.sized(fixed.samples[0], count)[0].shape == (4, 50)


def test_a_library_for_another_machine_is_measured_on_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hashcompile.artifact.machine", lambda: "x86_64")
    compiled = hc.compile(nn.Linear(16, 16), normal(16)(2))
    message = r'ARM64 cannot be measured on this machine, which is x86_64: .*on="user@device"'
    with pytest.raises(ConfigError, match=message):
        compiled.recommend(target="arm64")
    pytest.importorskip("tvm", reason="TVM is not installed: pip install 'hashcompile[tvm]'")
    monkeypatch.setattr("hashcompile.artifact.finds_gpu", lambda: False)
    with pytest.raises(ConfigError, match=r"CUDA cannot be measured on this machine, where TVM finds no GPU"):
        compiled.recommend(target="cuda")
    with pytest.raises(ConfigError, match=r"what a library for CUDA takes of the GPU's is not measured"):
        compiled.recommend(target="cuda", prefer="memory", on="user@device")
