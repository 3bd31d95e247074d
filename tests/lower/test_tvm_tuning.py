"""Tuning: the library computes the same, trials are kept, and a trial that fails hurts nobody."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from platform import machine
from typing import Any

import pytest
import torch

import hashcompile as hc
from hashcompile.core.errors import ArtifactError, ConfigError
from hashcompile.lower import tuning
from tests.models import build

tvm = pytest.importorskip("tvm", reason="TVM is not installed: pip install 'hashcompile[tvm]'")
try:
    hc.Tuning("trials")
except ConfigError as error:
    pytest.skip(str(error), allow_module_level=True)

from hashcompile.lower import tvm_search, tvm_tuning  # noqa: E402 - needs TVM
from hashcompile.lower.tvm import Lowered, lower  # noqa: E402
from hashcompile.lower.tvm_library import runner  # noqa: E402
from hashcompile.lower.tvm_platform import ARM64  # noqa: E402
from hashcompile.lower.tvm_schedules import prepared  # noqa: E402


@pytest.fixture(scope="module")
def compiled() -> hc.CompiledModel:
    """A model of which one product is left to TVM."""
    model, inputs = build("blocks")
    return hc.compile(model, inputs(3), compute="float")


@pytest.fixture(scope="module")
def lowered(compiled: hc.CompiledModel) -> Lowered:
    return lower(compiled.graph_module, compiled.signature, compiled.samples[0], "float", {})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tvm_search, "POPULATION", 8)


@pytest.fixture
def candidates(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Of all trials; none is run, and each takes longer than the one before."""
    asked: list[Path] = []

    def seconds(_bench: object, path: Path) -> list[float]:
        asked.append(path)
        return [1.0 + len(asked)]

    monkeypatch.setattr(tvm_search.Bench, "seconds", seconds)
    return asked


def tune(lowered: Lowered, compiled: hc.CompiledModel, how: hc.Tuning, target: Any = "llvm") -> Any:
    example = compiled.signature.sized(compiled.samples[0], how.batch)
    return tvm_tuning.tuned(lowered.module, tvm.target.Target({"kind": target}), example, how, False)


def lines(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / machine() / "trials.json").read_text().splitlines()]


def plain(decision: Any) -> Any:
    return [int(each) for each in decision] if hasattr(decision, "__len__") else int(decision)


def test_a_tuned_library_computes_the_same_and_another_export_tries_nothing(
    compiled: hc.CompiledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = hc.Tuning(tmp_path / "trials", trials=4)
    (check,) = compiled.export_tvm(tmp_path / "m.so", tune=how)
    assert check.error <= check.tolerance
    made = lines(tmp_path / "trials")
    assert len(made) == 4 and all(len(record[1][1]) == 3 for record in made), "each has three timings"
    monkeypatch.setattr(tvm_search, "TRIAL", tmp_path / "none")
    compiled.export_tvm(tmp_path / "m.so", tune=how)
    assert lines(tmp_path / "trials") == made
    _, inputs = build("blocks")
    for batch in (1, 2, 5):
        (got,) = runner(tmp_path / "m.so")(inputs(batch))
        torch.testing.assert_close(got, compiled(*inputs(batch)).detach(), rtol=1e-4, atol=1e-5)


def test_the_fastest_trial_schedules_the_function_of_any_batch(
    compiled: hc.CompiledModel, lowered: Lowered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def faster(_bench: object, path: Path) -> list[float]:
        asked.append(path)
        return [1.0 / len(asked)]

    monkeypatch.setattr(tvm_search.Bench, "seconds", faster)
    rule = tune(lowered, compiled, hc.Tuning(tmp_path, trials=6))
    ((function, trace),) = rule.steps
    best = min(lines(tmp_path), key=lambda record: sum(record[1][1]))
    steps, decisions = best[1][0]
    assert [step.kind.name for step in trace.insts] == [name for name, *_ in steps]
    chosen = [trace.decisions[step] for step in trace.insts if step in trace.decisions]
    assert [plain(each) for each in chosen] == [plain(each) for _, each in decisions]
    target = tvm.target.Target({"kind": "llvm"})
    assert rule.apply(function, target, False) is not None, "its batch is symbolic"
    module = prepared(lowered.module, target)
    assert any(
        rule.apply(each, target, False) for each in module.functions.values() if each is not module["main"]
    )


def test_nothing_slower_than_the_loops_without_tuning_is_chosen(
    compiled: hc.CompiledModel, lowered: Lowered, tmp_path: Path, candidates: list[Path]
) -> None:
    rule = tune(lowered, compiled, hc.Tuning(tmp_path, trials=3))
    assert len(candidates) == 3 and not rule.steps, "the first is ours"


def test_more_trials_go_on_where_the_others_ended(
    compiled: hc.CompiledModel, lowered: Lowered, tmp_path: Path, candidates: list[Path]
) -> None:
    for trials, made in ((2, 2), (5, 3), (5, 0), (4, 0), (0, 0)):
        candidates.clear()
        tune(lowered, compiled, hc.Tuning(tmp_path, trials=trials))
        assert len(candidates) == made


def test_trials_that_fail_leave_the_loops_as_they_are(
    compiled: hc.CompiledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dies.py").write_text("import os, sys; sys.stdin.readline(); os._exit(1)")
    monkeypatch.setattr(tvm_search, "TRIAL", tmp_path / "dies.py")
    how = hc.Tuning(tmp_path / "trials", trials=3)
    (check,) = compiled.export_tvm(tmp_path / "m.so", tune=how)
    assert check.error <= check.tolerance
    assert [record[1][1] for record in lines(tmp_path / "trials")] == [[tvm_search.FAILED]] * 3


def test_a_trial_that_hangs_is_given_up_and_the_next_one_runs(
    compiled: hc.CompiledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import json, sys, time\nfor line in sys.stdin:\n    'slow' in line and time.sleep(99)\n"
    (tmp_path / "slow.py").write_text(script + "    print(json.dumps({'seconds': [1.0]}), flush=True)")
    monkeypatch.setattr(tvm_search, "TRIAL", tmp_path / "slow.py")
    with tvm_search.bench(tvm.target.Target({"kind": "llvm"})) as bench:
        for name in ("slow", "fast"):
            (tmp_path / name).touch()
        monkeypatch.setattr(tvm_search, "PATIENCE", 0.2)
        with pytest.raises(ArtifactError, match=r"no answer in 0\.2 s"):
            bench.seconds(tmp_path / "slow")
        monkeypatch.setattr(tvm_search, "PATIENCE", 60.0)
        assert bench.seconds(tmp_path / "fast") == [1.0]


def test_an_interrupted_search_keeps_what_it_timed(
    compiled: hc.CompiledModel, lowered: Lowered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def interrupted(_bench: object, path: Path) -> list[float]:
        asked.append(path)
        if len(asked) == 4:
            signal.raise_signal(signal.SIGINT)
        return [1.0]

    monkeypatch.setattr(tvm_search.Bench, "seconds", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune(lowered, compiled, hc.Tuning(tmp_path, trials=12))
    assert len(asked) == 4 == len(lines(tmp_path))
    with (tmp_path / machine() / "trials.json").open("a") as file:
        file.write("[0, [[[], ")  # as a power cut leaves it
    monkeypatch.setattr(tvm_search.Bench, "seconds", lambda _bench, path: [1.0])
    tune(lowered, compiled, hc.Tuning(tmp_path, trials=12))
    assert len(lines(tmp_path)) == 12


def test_loops_for_another_machine_are_timed_there(
    compiled: hc.CompiledModel, lowered: Lowered, tmp_path: Path, candidates: list[Path]
) -> None:
    how, given = hc.Tuning(tmp_path, trials=2), compiled.signature.sized(compiled.samples[0], None)
    target = tvm.target.Target(ARM64)
    with pytest.raises(ConfigError, match=r'for aarch64 .*export there with target="cpu"'):
        tvm_tuning.tuned(lowered.module, target, given, how, False)
    assert not candidates
    tune(lowered, compiled, how)
    (tmp_path / "aarch64").rename(tmp_path / "empty")
    (tmp_path / machine()).rename(tmp_path / "aarch64")  # stands for the folder of such a machine
    tvm_tuning.tuned(lowered.module, target, given, how, False)
    assert len(candidates) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("", 3), "folder="),
        ((3, 3), "folder="),
        ((__file__, 3), "is a file"),
        (("trials", -1), "trials=-1"),
        (("trials", 2.5), r"trials=2\.5"),
        (("trials", True), "trials=True"),
        (("trials", 3, 0), "batch=0"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        hc.Tuning(*given)


def test_what_is_no_tuning_is_refused_before_anything_is_done(
    compiled: hc.CompiledModel, tmp_path: Path
) -> None:
    wrong: Any = 1000
    with pytest.raises(ConfigError, match=r"tune=1000: wanted hashcompile\.Tuning"):
        compiled.export_tvm(tmp_path / "m.so", tune=wrong)


def test_a_tvm_that_would_crash_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning.metadata, "version", lambda name: "0.1.15.post2")
    with pytest.raises(
        ConfigError, match=r"0\.1\.15\.post2, which crashes: pip install 'hashcompile\[tune\]'"
    ):
        hc.Tuning("trials")


@pytest.mark.parametrize("name", ["trials.json", "functions.json", "finished.json"])
def test_a_damaged_folder_is_told(
    name: str, compiled: hc.CompiledModel, lowered: Lowered, tmp_path: Path, candidates: list[Path]
) -> None:
    tune(lowered, compiled, hc.Tuning(tmp_path, trials=1))
    (tmp_path / machine() / name).write_text("nonsense\n")
    with pytest.raises(ArtifactError, match="remove it"):
        tune(lowered, compiled, hc.Tuning(tmp_path, trials=3))
