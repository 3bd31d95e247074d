"""The race against the peers: failures are rows, ratios are what they say, and the JSON holds all of it."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from contest import limits, memory, plot, report
from contest.figures import Figure, figures, speed_ratio
from contest.limits import Bound, Machine
from contest.peer import CALL, OURS, NotApplicableError, Peer, stock
from contest.prepared import key, prepared
from contest.standings import Settings, Standing, contest
from contest.subject import Recipe, Subject
from peers import onnxruntime_fp32, onnxruntime_nbits, openvino_weights, registry, tvm
from zoo import imagenet, single

from hashcompile.core.console import render

ENGINE = """
import os, time
def imports(request): pass
def load(request):
    if request.get("dies"): os._exit(9)
    print("libraries talk")
    return request
def bind(request, case):
    def run():
        time.sleep(request["delay"])
        if request.get("breaks"): raise ValueError("out of luck\\nand more")
    return run
"""


@pytest.fixture
def subject() -> Subject:
    cases = {f"M={m}": {"input": torch.ones(m, 32)} for m in (1, 2)}
    return Subject(
        "tiny", Recipe("zoo.single", "linear", (16, 32)), cases, {"input": {0: torch.export.Dim("M")}}
    )


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., Peer]:
    """A peer that sleeps, and may fail at any step."""
    engine = tmp_path / "engine.py"
    engine.write_text(ENGINE)

    def make(name: str, delay: float = 0.001, error: Exception | None = None, **options: bool) -> Peer:
        def prepare(subject: Subject, folder: Path) -> list[str]:
            if error:
                raise error
            (folder / "model").write_bytes(b"12345")
            return ["model"]

        return Peer(name, "a fake", (), engine, prepare, {"delay": delay, **options})

    return make


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(threads=(1,), rounds=2, seconds=0.01, patience=60, build=tmp_path / "build")


def test_a_failing_peer_is_a_row_with_its_reason(subject, fake, settings):
    peers = [
        fake(OURS),
        fake("absent", error=ModuleNotFoundError("No module named 'absent'", name="absent")),
        fake("unfit", error=NotApplicableError("has no convolution")),
        fake("broken", error=RuntimeError("what went wrong\nand a page of it")),
        fake("dies", dies=True),
        fake("late", breaks=True),
        fake("good", delay=0.003),
    ]
    lines = contest(subject, peers, settings)
    assert [(line.peer, line.case) for line in lines] == [
        (peer.name, case) for peer in peers for case in ("M=1", "M=2")
    ]
    said = {line.peer: line.reason for line in lines}
    assert said["absent"] == "absent is not installed"
    assert said["unfit"] == "has no convolution"
    assert said["broken"] == "RuntimeError: what went wrong"
    assert "process that ran it died" in said["dies"]
    assert "out of luck" in said["late"]
    for line in lines:
        works = line.peer in (OURS, "good")
        assert len(line.rounds_ms) == (2 if works else 0)
        assert bool(line.reason) is not works
        assert (line.file_bytes == 5) is (line.peer in (OURS, "good", "dies", "late"))
        assert (line.resident_bytes is not None) is works
    slow = next(line for line in lines if line.peer == "good")
    assert 3 <= slow.median_ms < 50
    text = render(report.times_table(lines), *report.reasons(lines))
    assert "absent is not installed" in text
    assert text.count("absent is not installed") == 1
    (first, second) = figures(lines, {"M=1": 100.0}, {})
    assert (first.fastest, first.kept, second.kept) == ("good", False, None)


def test_a_hung_peer_is_given_up(subject, fake, settings):
    (line, _) = contest(subject, [fake("hung", delay=30)], replace(settings, patience=0.5))
    assert "no answer in 0.5 s" in line.reason


def test_a_hopeless_peer_runs_one_round_and_ours_all(subject, fake, settings):
    peers = [fake(OURS, delay=0.03), fake("quick"), fake("hopeless", delay=0.02), fake(CALL, delay=0.0)]
    rounds = {line.peer: len(line.rounds_ms) for line in contest(subject, peers, settings)}
    assert rounds == {OURS: 2, "quick": 2, "hopeless": 1, CALL: 2}


def line(peer: str, *rounds: float, case: str = "a", threads: int = 1, reason: str = "") -> Standing:
    return Standing("s", case, threads, peer, rounds, reason=reason)


def test_the_ratio_is_of_medians_and_the_spread_of_rounds():
    ours, peer = line(OURS, 1.0, 2.0, 4.0), line("p", 4.0, 3.0, 8.0)
    assert speed_ratio(ours, peer) == (4.0 / 2.0, 3.0 / 2.0, 4.0)


def test_the_fastest_peer_is_neither_ours_nor_the_call():
    lines = [
        line(CALL, 0.1, 0.1),
        line("ort slow", 9.0, 9.0),
        line(OURS, 1.1, 1.1),
        line("ort fast", 2.1, 2.1),
        line("absent", reason="not installed"),
        line("ort slow", 5.0, case="b"),
        line(OURS, case="b", reason="died"),
        line(OURS, 1.0, case="c"),
    ]
    (only,) = figures(lines, {"a": 2.0}, {("s", "a", 1): Bound(0.55, "MACs")})
    assert (only.fastest, only.kept) == ("ort fast", False)
    assert only.ratio == pytest.approx(2.1 / 1.1)
    assert only.net_ratio == pytest.approx(2.0)
    assert only.of_limit == pytest.approx(0.5)
    assert replace(only, fastest="openvino").net_ratio is None, "it has not paid ONNX Runtime's call"
    assert replace(only, at_least=1.9).kept


def test_the_json_holds_raw_and_concluded(tmp_path):
    lines = [line(OURS, 1.0), line("p", 2.0), line("q", reason="not installed")]
    concluded = list(figures(lines, {"a": 2.0}, {("s", "a", 1): Bound(0.5, "bytes")}))
    report.write_json(
        tmp_path / "deep" / "x.json", report.document({"rounds": 1}, lines, concluded, limits={"int8": []})
    )
    read = json.loads((tmp_path / "deep" / "x.json").read_text())
    assert set(read) == {"machine", "settings", "standings", "figures", "limits"}
    assert set(read["machine"]) == {"cpu", "cores", "load", "system", "versions"}
    assert [row["peer"] for row in read["standings"]] == [OURS, "p", "q"]
    assert read["standings"][2]["reason"] == "not installed"
    (figure,) = read["figures"]
    assert figure["ratio"] == 2.0
    assert figure["kept"] is True
    assert figure["of_limit"] == 0.5
    assert figure["bound"] == {"milliseconds": 0.5, "by": "bytes"}
    text = render(report.figures_table(concluded))
    assert "2.00 x" in text
    assert "50%" in text


def test_the_plot_is_a_picture(tmp_path):
    pytest.importorskip("matplotlib", reason="plots need the extra `benchmarks`")
    figure = Figure("s", "a", 1, 1.0, "p", 2.0, 2.0, 1.9, 2.2, at_least=2.0)
    plot.plot(tmp_path / "x.png", [figure, replace(figure, at_least=None)], "title")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0.00471, "4.71 us"), (0.0123, "12.3 us"), (0.9999, "1.00 ms"), (123.4, "123 ms")],
)
def test_times_keep_three_digits(milliseconds, text):
    assert report.format_ms(milliseconds) == text


def test_what_was_prepared_is_kept_until_the_recipe_changes(subject, settings):
    calls = []

    def prepare(_subject: Subject, folder: Path) -> list[str]:
        calls.append(folder)
        (folder / "a").write_bytes(b"123")
        (folder / "litter").touch()
        return ["a"]

    peer = stock("p q", "a fake", prepare)
    first, again = prepared(peer, subject, settings.build), prepared(peer, subject, settings.build)
    assert first == again
    assert (len(calls), first.file_bytes) == (1, 3)
    other = replace(subject, recipe=Recipe("zoo.single", "linear", (32, 32)))
    fed = replace(subject, calibration=lambda: [{"input": torch.zeros(3, 32)}])
    assert len({key(peer, each) for each in (subject, other, fed)}) == 3
    failing = replace(peer, name="failing", prepare=lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepared(failing, subject, settings.build)
    left = [path.name for path in (settings.build / "prepared" / "tiny").iterdir()]
    assert len(left) == 1, "a failure leaves nothing"


def test_weights_without_a_file_count_as_they_are(subject, settings, fake):
    peer = replace(fake("p"), prepare=lambda *_: [])
    assert prepared(peer, subject, settings.build).file_bytes == 4 * 16 * 32


def test_macs_are_those_of_the_layer(subject):
    assert subject.macs("M=2") == 2 * 16 * 32
    conv = Subject(
        "conv", Recipe("zoo.single", "conv", (4, 6, 3, 1, 2)), {"x": {"input": torch.ones(2, 4, 8, 8)}}
    )
    assert conv.macs("x") == 2 * 6 * 8 * 8 * (4 // 2) * 9


def test_the_limit_is_the_worse_of_bytes_and_macs(tmp_path):
    machine = Machine(tmp_path, int8={1: 1e9}, read={(1 << 20, 1): 1e9, (1 << 15, 1): 1e9})
    assert machine.bound(1 << 20, 1000, 1) == Bound(pytest.approx(1.048576), "bytes")
    assert machine.bound(100, 10**7, 1) == Bound(pytest.approx(10.0), "MACs")


def test_the_probe_measures_this_machine(tmp_path):
    machine = Machine(tmp_path)
    try:
        assert 1e8 < machine.read_rate(1 << 20, 1) < 1e13
    except limits.NoProbeError as error:
        pytest.skip(str(error))
    assert machine.int8_rate(1) == 0 or 1e8 < machine.int8_rate(1) < 1e14
    assert machine.int8_rate(10_000) == 0, "more threads than the probe has room for"
    assert machine.facts()["read"][0]["bytes"] == 1 << 20


def test_without_a_compiler_there_is_no_limit(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "/nowhere/cc")
    with pytest.raises((limits.NoProbeError, FileNotFoundError)):
        Machine(tmp_path / "none").int8_rate(1)
    monkeypatch.delenv("CC")
    monkeypatch.setattr(limits.shutil, "which", lambda _: None)
    with pytest.raises(limits.NoProbeError, match="no C compiler"):
        Machine(tmp_path / "none").int8_rate(1)


def test_onnx_runtime_peers_run_for_real(subject, settings):
    peers = [onnxruntime_fp32.PEER, *onnxruntime_nbits.PEERS[:1], openvino_weights.PEERS[1]]
    wide = replace(subject, recipe=Recipe("zoo.single", "linear", (32, 128)), name="wide")
    wide = replace(wide, cases={"M=2": {"input": torch.ones(2, 128)}})
    fp32, nbits, openvino = contest(wide, peers, settings)
    assert fp32.rounds_ms and nbits.rounds_ms
    assert nbits.file_bytes < fp32.file_bytes
    assert openvino.rounds_ms or openvino.reason
    assert not contest(replace(wide, kind="convolution"), peers[1:2], settings)[0].rounds_ms


def test_tvm_peers_run_for_real(subject, settings):
    pytest.importorskip("tvm", reason="TVM is not installed: pip install 'hashcompile[tvm]'")
    for line in contest(subject, tvm.PEERS, settings):
        assert line.rounds_ms and line.file_bytes, line.reason


def test_plain_tvm_has_a_library_of_fixed_sizes_for_each_case(subject, tmp_path):
    """It does not compile all of what it compiles so where a size is symbolic."""
    runtime = pytest.importorskip("tvm", reason="TVM is not installed: pip install 'hashcompile[tvm]'")
    names = tvm.PEERS[-1].prepare(subject, tmp_path)
    assert names == ["1x32.so", "2x32.so"]
    for name, (wanted, other) in zip(names, [(1, 2), (2, 1)], strict=True):
        library = runtime.runtime.load_module(str(tmp_path / name))
        main = runtime.relax.VirtualMachine(library, runtime.cpu())["main"]
        assert main(runtime.runtime.tensor(np.ones((wanted, 32), np.float32)))[0].shape == (wanted, 16)
        with pytest.raises(RuntimeError, match=f"{other} vs. {wanted}"):
            main(runtime.runtime.tensor(np.ones((other, 32), np.float32)))


def test_our_file_holds_no_dense_copy(tmp_path):
    file = tmp_path / "ours.onnx"
    single.write_codebook_linear(file, 64, 128)
    found = memory.footprint(file, Standing("s", "a", 1, OURS, resident_bytes=20_000), empty=10_000)
    assert (found.dense, found.own) == (4 * 64 * 128, 10_000)
    assert 64 * 128 // 2 <= found.packed < 64 * 128 // 2 + 1_000
    assert found.verdict == "no dense copy"
    assert replace(found, resident=100_000).verdict != "no dense copy"
    assert memory.footprint(file, Standing("s", "a", 1, OURS), 0) is None
    single.write_empty(file)
    assert memory.empty_session(file, 1) > 0
    assert memory.footprint(file, Standing("s", "a", 1, OURS, resident_bytes=1), 0) is None


def test_peers_are_chosen_by_name():
    assert [peer.name for peer in registry.chosen(["openvino int4*"])] == [
        OURS,
        "openvino int4 sym",
        "openvino int4 asym",
    ]
    assert len(registry.chosen([])) == len(registry.PEERS)
    with pytest.raises(ValueError, match="no peer is named 'openvivo'"):
        registry.chosen(["openvivo"])
    assert len({peer.name for peer in registry.PEERS}) == len(registry.PEERS)


def test_networks_have_the_published_sizes():
    sizes = {"resnet18": 11_689_512, "resnet50": 25_557_032, "mobilenet_v2": 3_504_872}
    for name, size in sizes.items():
        assert sum(weight.numel() for weight in imagenet.NETWORKS[name]().parameters()) == size
    with torch.no_grad():
        logits = imagenet.load("mobilenet_v2")(imagenet.images(2, 64))
    assert logits.shape == (2, 1_000)
    assert np.isfinite(logits.numpy()).all()
