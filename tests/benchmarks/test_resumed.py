"""Trainings of benchmarks/papers go on where they were stopped, to the same networks."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.benchmarks.small import digits, epochs_of, network


class StoppedError(Exception):
    pass


def test_training_goes_on_where_it_was_stopped(papers: Any, tmp_path: Path) -> None:
    """To the same network, bit by bit: momentum and what dropout draws go on, too."""
    train, keep = papers("train"), tmp_path / "net.safetensors"
    settings = {"epochs": 3, "rate": 0.1}
    whole, parts, again = (nn.Sequential(nn.Dropout(0.2), network()) for _ in range(3))
    train.train(whole, *digits(512), **settings)
    steps = 0

    def stop() -> None:
        nonlocal steps
        steps += 1
        if steps == 10:  # in the third epoch of 4 steps each
            raise StoppedError

    with pytest.raises(StoppedError):
        train.train(parts, *digits(512), **settings, keep=keep, after=stop)
    assert epochs_of(keep) == 2
    train.train(again, *digits(512), **settings, keep=keep)
    assert epochs_of(keep) == 3
    assert train.top1(whole, *digits(512)) > 95
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@pytest.fixture
def trial(request: pytest.FixtureRequest, papers: Any, four_shades: Any) -> Any:
    """A function of a file: it trains, keeps that in the file, and tells what it measured."""
    model, *images = four_shades
    data = digits(256)
    subject = papers("subjects").Subject("mlp", "tiny", network().eval(), data, data, 0.05)
    match request.param.split(": "):
        case ["learnt", way]:
            learnt = papers("learnt_codebooks")
            return lambda keep: learnt.measure(model, learnt.Way(way), 4, images, images, 6, keep=keep)
        case ["channels"]:
            way = next(way for way in papers("ways").ways() if way.name == "l2")
            return lambda keep: papers("measure").point(subject, way, 0.5, 6, keep=keep)
        case ["weights"]:
            return lambda keep: papers("measure").weights_cut(subject, 0.5, 6, keep=keep)
        case ["rounds"]:
            return lambda keep: papers("rounds").rounds(subject, "column_norm", 3, 2, keep)
    words = importlib.import_module("zoo.words")
    windows = (torch.arange(4000)[:, None] + torch.arange(words.CONTEXT + 1)) % 50

    def next_word(keep: Path) -> None:
        torch.manual_seed(0)
        words.train(words.NextWord(50), windows, steps=12, batch=64, keep=keep)

    return next_word


@pytest.mark.parametrize(
    "trial",
    [
        "learnt: soft",
        "learnt: straight-through",
        "learnt: tables",
        "channels",
        "weights",
        "rounds",
        "words",
    ],
    indirect=True,
)
@pytest.mark.parametrize("last", [5, 7, 11])  # of 12 steps; codes that learn are held from the tenth on
def test_a_trial_goes_on_where_it_was_stopped(
    papers: Any, trial: Any, last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the same result and the same state of all that trained, bit by bit; no step is done twice."""
    papers("train")
    checkpoint = importlib.import_module("zoo.checkpoint")
    reached, seen = checkpoint.Checkpoint.reached, []

    def counted(self: Any, steps: int, end: bool = False) -> None:
        seen.append(steps)
        reached(self, steps, end or steps == 12)
        if len(seen) == stop:
            raise StoppedError

    monkeypatch.setattr(checkpoint, "PAUSE", 0.0)
    monkeypatch.setattr(checkpoint.Checkpoint, "reached", counted)
    stop = 0
    whole = trial(tmp_path / "whole.safetensors")
    stop = len(seen) + last
    with pytest.raises(StoppedError):
        trial(tmp_path / "parts.safetensors")
    assert trial(tmp_path / "parts.safetensors") == whole
    assert len(seen) == 24 and seen[:12] == seen[12:]
    for file in tmp_path.glob("whole*"):
        assert file.read_bytes() == file.with_name(file.name.replace("whole", "parts")).read_bytes()
    assert len([*tmp_path.iterdir()]) in (2, 6)


def test_between_epochs_training_is_kept_now_and_then(
    papers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, now, kept = papers("train").train, 0.0, []
    checkpoint = importlib.import_module("zoo.checkpoint")
    monkeypatch.setattr(checkpoint, "monotonic", lambda: now)
    keep = tmp_path / "net.safetensors"

    def after() -> None:
        nonlocal now
        now += checkpoint.PAUSE / 3
        kept.append(epochs_of(keep) if keep.exists() else 0)

    train(network(), *digits(1280), epochs=1.25, rate=0.1, keep=keep, after=after)
    assert kept == [
        0,
        0,
        0,
        0.3,
        0.3,
        0.3,
        0.6,
        0.6,
        0.6,
        0.9,
        1,
        1,
    ]  # before each step was kept, of 10 an epoch
    assert epochs_of(keep) == 1.2


def test_a_trainings_file_is_its_own_and_goes_when_it_is_measured(papers: Any, tmp_path: Path) -> None:
    Kept = papers("kept").Kept
    kept = Kept(tmp_path / "channels.json", {"epochs": 1.0})
    keys = [{"way": "l2", "strength": 0.5}, {"way": "l2", "strength": 0.3}, {"way": "l1", "strength": 0.5}]
    files = [kept.training(key) for key in keys]
    files += [
        Kept(tmp_path / name, {"epochs": 2.0}).training(keys[0]) for name in ("channels.json", "a.json")
    ]
    assert len(set(files)) == 5
    assert files[0].name.startswith("channels_l2_0.5_") and files[0].suffix == ".safetensors"
    files += [file.with_stem(f"{file.stem}_1") for file in files[:2]]  # a round
    files[0].parent.mkdir()
    for file in files:
        file.touch()
    kept.once(keys[0], dict)
    assert [file.exists() for file in files] == [False, True, True, True, True, False, True]
    assert Kept(tmp_path / "channels.json", {"epochs": 1.0}).training(keys[1]) == files[1], "as read, too"


def run_channels(papers: Any, four_shades: Any, monkeypatch: pytest.MonkeyPatch, out: Path) -> int:
    channels, data = papers("channels"), digits(256)
    model = nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 4)).eval()
    tiny = papers("subjects").Subject(channels.Name.lenet300, "tiny", model, data, data, 0.05)
    monkeypatch.setattr(channels, "subjects", lambda *_: [(tiny, 50.0)])
    parts = [each for each in channels.Part if each is not channels.Part.latency]
    channels.main([tiny.name], parts, ["l2"], [0.25, 0.5], 1.0, None, False, 512, 256, 1, 1, out)
    return 2 + 2 * 2 + channels.ROUNDS * len(channels.RULES)


def run_learnt(papers: Any, four_shades: Any, monkeypatch: pytest.MonkeyPatch, out: Path) -> int:
    learnt = papers("learnt_codebooks")
    model, *images = four_shades
    monkeypatch.setattr(learnt, "network", lambda *_: model)
    monkeypatch.setattr(learnt.cifar, "images", lambda *_: tuple(images))
    learnt.main([learnt.Name.resnet20], [4, 16], ["soft", "tables"], 1.0, False, 256, 256, 64, 3, 1, out)
    return 4


def run_hashed(papers: Any, four_shades: Any, monkeypatch: pytest.MonkeyPatch, out: Path) -> int:
    hashednets = papers("hashednets")
    images = hashednets.mnist.Images(torch.rand(128, 1, 28, 28), torch.arange(128) % 10)
    monkeypatch.setattr(hashednets.mnist, "images", lambda *_: images)
    hashednets.main([3], [64], ["hashed", "low rank"], 1, 0.05, 128, 128, 1, False, out)
    return 2


def run_slide(papers: Any, four_shades: Any, monkeypatch: pytest.MonkeyPatch, out: Path) -> int:
    slide = papers("slide")
    windows = (torch.arange(4000)[:, None] + torch.arange(slide.words.CONTEXT + 1)) % 1000
    text = slide.words.Words([str(i) for i in range(1000)], windows, windows)
    monkeypatch.setattr(slide.words, "words", lambda: text)
    (first, _), (again, _) = (slide.trained(out / "papers", 20) for _ in range(2))
    assert torch.equal(first.head.weight, again.head.weight)
    return 1


@pytest.mark.parametrize("script", [run_channels, run_learnt, run_hashed, run_slide])
def test_whatever_a_script_trains_has_a_file_of_its_own(
    papers: Any, four_shades: Any, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it trains, and no longer."""
    if script is not run_slide:
        pytest.importorskip("matplotlib", reason="the plots need the extra `benchmarks`")
    papers("train")
    checkpoint, files = importlib.import_module("zoo.checkpoint"), []
    begin = checkpoint.Checkpoint.__init__

    def spied(self: Any, path: Path | None, *rest: Any) -> None:
        assert path is not None and path.parent == tmp_path / "papers" and path not in files
        files.append(path)
        begin(self, path, *rest)
        self.reached(0)
        assert path.exists()

    monkeypatch.setattr(checkpoint.Checkpoint, "__init__", spied)
    assert script(papers, four_shades, monkeypatch, tmp_path) == len(files)
    left = [*(tmp_path / "papers").iterdir()]
    assert [each.name for each in left] == (["slide_words_20.safetensors"] if script is run_slide else [])


def test_training_calls_back_for_steps_that_were_done_before(papers: Any, tmp_path: Path) -> None:
    """A schedule that counts steps is where it was, and what was kept is not written over by the way there."""
    train, calls = papers("train").train, []
    for epochs in (1, 2):
        train(
            network(),
            *digits(512),
            epochs=2 if epochs == 2 else 1,
            rate=0.1,
            keep=tmp_path / "net.safetensors",
            after=lambda: calls.append(epochs_of(tmp_path / "net.safetensors") if calls[4:] else 0),
        )
    assert len(calls) == 4 + 8
    assert calls[5:8] == [1, 1, 1]
