"""The experiments of benchmarks/papers: what they train and measure, on a network of a few units."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import hashcompile as hc
from tests.benchmarks.small import digits, epochs_of, network


def rows(table: Any) -> list[list[str]]:
    return [[*map(str, row)] for row in zip(*(column.cells for column in table.columns), strict=True)]


def cells(table: Any) -> dict[str, list[str]]:
    """The rows of a table, by what stands first in them."""
    return {first: rest for first, *rest in rows(table)}


def test_a_taught_network_learns_outputs_and_no_labels(papers: Any) -> None:
    train = papers("train")
    inputs, labels = digits(512)
    teacher, model = network(), network()
    train.train(teacher, inputs, labels, epochs=4, rate=0.1)
    for linear in (model[0], model[3]):
        nn.init.normal_(linear.weight, std=0.3)
    train.train(model, inputs, torch.zeros_like(labels), epochs=8, rate=0.05, teacher=teacher)
    assert train.top1(model, inputs, labels) > 95


def test_masked_weights_stay_zero(papers: Any) -> None:
    train, measure = papers("train"), papers("measure")
    model = network()
    mask = measure.smallest_zero(model[0].weight.detach(), 0.75)
    assert int(mask.sum()) == 48
    assert float(model[0].weight[mask == 0].detach().abs().max()) <= float(
        model[0].weight.detach()[mask == 1].abs().min()
    )
    train.train(model, *digits(256), epochs=1, rate=0.1, masks={"0.weight": mask})
    assert bool((model[0].weight[mask == 0] == 0).all()) and bool((model[0].weight[mask == 1] != 0).all())


def test_shifted_images_are_windows_of_the_padded_one(papers: Any) -> None:
    images = 1 + torch.arange(3 * 2 * 5 * 6.0).view(3, 2, 5, 6)
    padded = nn.functional.pad(images, (2, 2, 2, 2))
    seen = set()
    for seed in range(20):
        for image, wide in zip(papers("train").shifted(images, seed, most=2), padded, strict=True):
            windows = wide.unfold(1, 5, 1).unfold(2, 6, 1).movedim(0, 2)  # (5, 5, C, H, W)
            plain = (windows == image).flatten(2).all(2)
            mirrored = (windows == image.flip(2)).flatten(2).all(2)
            assert int(plain.sum() + mirrored.sum()) == 1
            seen.add((bool(mirrored.any()), *(plain + mirrored).nonzero()[0].tolist()))
    assert len(seen) > 25


def test_the_index_is_that_of_what_is_left(papers: Any) -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    nn.init.constant_(model[0].weight, 3.0)
    model[0].weight.data[:, 0] = 0
    model[2].weight.data.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 4, 0, 0]]))
    # 28 entries that are alike, and a 1 beside a 4: I = 1 - 2 ** (1 - 2) * (1 + 2) ** 2 / 5 at p = 1/2, q = 1
    assert papers("measure").index_of(model) == pytest.approx(2 * (1 - 9 / 10) / 30)
    model[0].weight.data.zero_(), model[2].weight.data.zero_()
    assert papers("measure").index_of(model) is None


def test_every_thin_way_is_judged(papers: Any, tmp_path: Path) -> None:
    measure, ways = papers("measure"), papers("ways")
    data = digits(512)
    model = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 4))
    papers("train").train(model, *data, epochs=4, rate=0.1)
    given = papers("subjects").Subject(papers("subjects").Name.mlp, "tiny", model.eval(), data, data, 0.05)
    assert len(list(ways.thin_ways(True))) > len(list(ways.thin_ways(False)))
    todo = [(way, each) for way in ways.thin_ways(False) for each in way.among([0.5])]
    points = measure.run(given, todo, 0, papers("kept").Kept(tmp_path / "points.json", {}))
    kept = papers("kept").Kept(tmp_path / "times.json", {})
    times = measure.latencies(given, todo[:1], tmp_path, 1, 3, kept)
    assert [each.batch for each in times] == [1, 32] and 0 < times[0].macs < 1
    assert measure.latencies(given, todo[:1], tmp_path, 1, 3, kept) == times
    pytest.importorskip("matplotlib", reason="the plots need the extra `benchmarks`")
    papers("curves").draw_times(tmp_path / "times.png", "tiny", 100, points, times)
    assert (tmp_path / "times.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("macs", "top1", "times", "verdict"),
    [
        (0.5, 99.6, (0.9, 0.8), ("0.5", "-0.40", "90%", "80%", "helps")),
        (0.5, 99.6, (0.9, 0.98), ("0.5", "-0.40", "90%", "98%", "does not help")),
        (0.5, 99.4, (0.5, 0.5), ("", "", "", "", "loses too much, or saves nothing")),
        (1.0, 100.0, (0.9, 0.9), ("", "", "", "", "loses too much, or saves nothing")),
    ],
)
def test_low_rank_helps_where_less_is_computed_in_less_time(
    papers: Any, macs: float, top1: float, times: tuple[float, float], verdict: tuple[str, ...]
) -> None:
    measure, low_rank = papers("measure"), papers("low_rank")
    points = [measure.Point("svd", 0.5, macs, macs, top1, None)]
    taken = [
        measure.Latency("svd", 0.5, batch, macs, time, 1.0, time)
        for batch, time in zip((1, 32), times, strict=True)
    ]
    assert low_rank.verdict("svd", points, taken, 100.0) == verdict


@pytest.mark.parametrize("way", ["magnitude", "corrected", "Wanda", "SparseGPT"])
def test_pruned_at_once(papers: Any, way: str) -> None:
    pruned, data = papers("pruned_once"), digits(512)
    model = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 4))
    papers("train").train(model, *data, epochs=4, rate=0.1)
    given = papers("subjects").Subject(papers("subjects").Name.mlp, "tiny", model.eval(), data, data, 0.05)
    found = {size: pruned.accuracy(given, size, way, 256)["top1"] for size in ("50%", "90%")}
    assert found["50%"] > 90 and found["90%"] <= found["50%"]


def test_every_way_makes_a_network_smaller(papers: Any) -> None:
    measure, subjects = papers("measure"), papers("subjects")
    model, data = network(), digits(512)
    papers("train").train(model, *data, epochs=4, rate=0.1)
    given = subjects.Subject(subjects.Name.lenet300, "tiny", model.eval(), data, data, 0.05)
    for way in papers("ways").ways():
        found = measure.point(given, way, way.strengths[-1], epochs=0)
        assert found.after is None and 0 < found.macs <= 1 and 0 < found.parameters <= 1
        assert found.macs < 1 or way.name.startswith(("auto", "whole"))
    l2 = next(way for way in papers("ways").ways() if way.name == "l2")
    tuned = measure.point(given, l2, 0.5, epochs=8)
    assert tuned.after is not None and tuned.after > max(90, tuned.before)


def test_what_was_measured_is_not_measured_again(papers: Any, tmp_path: Path) -> None:
    kept = papers("kept")
    path, asked = tmp_path / "results.json", []

    def once(setting: float, way: str) -> float:
        def measure() -> dict[str, float]:
            asked.append(way)
            return {"error": float(len(asked))}

        return kept.Kept(path, {"epochs": setting}).once({"way": way}, measure)["error"]

    assert [once(1, "a"), once(1, "b"), once(1, "a"), once(1, "b")] == [1, 2, 1, 2]
    assert once(2, "a") == 3, "another setting is another experiment"
    assert once(1, "b") == 2, "and leaves the first as it is"
    assert asked == ["a", "b", "a"]
    assert kept.label({"a": 1, "b": 2}) == kept.label({"b": 2, "a": 1}) != kept.label({"a": 1, "b": 3})


@pytest.mark.parametrize("layers", [3, 5])
def test_hashed_networks_and_those_beside_them_are_of_one_size(papers: Any, layers: int) -> None:
    hashednets = papers("hashednets")
    whole = hashednets.weights(hashednets.dense(layers, 1.0)[0])
    assert whole == {3: 794_000, 5: 2_794_000}[layers]
    images = torch.rand(128, 1, 28, 28), torch.arange(128) % 10
    for way in hashednets.WAYS:
        ratio = 1 if way == "dense" else 64
        found = hashednets.measure(way, layers, ratio, images, images, epochs=1, rate=0.05, keep=None)
        assert found["weights"] == pytest.approx(whole / ratio, rel=0.15), way  # ranks are whole numbers
        assert 0 <= found["error"] <= 100


def test_the_table_and_the_plot_of_hashed_networks(papers: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the plots need the extra `benchmarks`")
    hashednets = papers("hashednets")
    found = [
        {"way": way, "layers": 3, "ratio": 8, "weights": 99_250, "error": 1.5} for way in ("hashed", "dense")
    ]
    assert hashednets.errors(found).row_count == 2
    hashednets.draw(tmp_path / "plot.png", found)
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_layers_of_tiles_are_timed_and_drawn(
    papers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashednets = papers("hashednets")

    def bench(files: Any, settings: Any, show: bool) -> list[SimpleNamespace]:
        assert [each.runtime for each in files] == ["onnxruntime", "hashcompile"]
        return [SimpleNamespace(p50_ms=3.0), SimpleNamespace(p50_ms=1.5)]

    monkeypatch.setattr(hashednets, "bench", bench)
    found = {"size": 64, "ratio": 4, **hashednets.layer_times(64, 4, tmp_path, threads=1)}
    assert found["batches"] == [{"batch": n, "dense_ms": 3.0, "tiles_ms": 1.5} for n in hashednets.BATCHES]
    assert json.loads(json.dumps(found)) == found, "it is kept as JSON"
    assert rows(hashednets.speeds([found]))[0] == [
        "64 x 64",
        "1/4",
        "4.10 kB",
        "1",
        "3.000",
        "1.500",
        "2.00x",
        found["runs_as"],
    ]
    pytest.importorskip("matplotlib", reason="the plots need the extra `benchmarks`")
    hashednets.draw_speeds(tmp_path / "plot.png", [found])
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_rows_of_a_wide_layer_are_chosen_in_every_way(papers: Any, tmp_path: Path) -> None:
    slide = papers("slide")
    torch.manual_seed(0)
    head = nn.Linear(24, 300)
    head.weight.data *= 4
    inputs = torch.randn(400, 24), torch.randn(60, 24)

    class Times:
        def of(self, made: Any) -> dict[str, float]:
            return {"wide_1": 1.0, "full_1": 2.0, "coded_1": 3.0}

    results = [{**key, **job()} for key, job in slide.jobs(head, inputs, [0.8], [64], Times())]
    assert [each["way"].split(",")[0] for each in results] == ["sketch"] * 2 + ["union of tables"] * 2
    assert results[0]["same"] >= results[1]["same"] - 0.05 > 0.5, "codes cost little"
    for each in results:
        assert 0 < each["share"] < 1 and each["recall"] >= 0.6
    assert results[0]["share"] < results[2]["share"], "a union computes more for the same recall"
    assert slide.summary(results, [1]).row_count == 4
    mine = cells(slide.beside(results, 300, [1]))
    assert [*mine] == [*(name for name, *_ in slide.PUBLISHED), "ours, M = 1"]
    assert mine["ours, M = 1"] == ["300", results[0]["way"], f"{results[0]['recall']:.2%}", "2.00x", ""]
    pytest.importorskip("matplotlib", reason="the plots need the extra `benchmarks`")
    slide.draw(tmp_path / "plot.png", results, [1])
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_a_network_of_words_learns(papers: Any) -> None:
    papers("kept")  # brings the folder of the benchmarks
    words = importlib.import_module("zoo.words")
    windows = (torch.arange(4000)[:, None] + torch.arange(words.CONTEXT + 1)) % 50
    torch.manual_seed(0)
    model = words.NextWord(50)
    words.train(model, windows, steps=60, batch=64)
    with torch.no_grad():
        right = model(windows[:, : words.CONTEXT]).argmax(1) == windows[:, words.CONTEXT]
    assert float(right.float().mean()) > 0.9
    assert list(words.joined(["a", "b", "a", "b", "c"], {("a", "b"), ("b", "c")})) == ["a b", "a b", "c"]


def test_deep_compression_of_a_small_network(papers: Any, tmp_path: Path) -> None:
    deep = papers("deep_compression")
    rows = (deep.Layer(0.5, 4.0, 4.0, 0.1),) * 2
    small = deep.Network("small", network, 0.1, {"0": 0.5, "3": 0.25}, {"*": 3}, rows, (2.0, 10, 2.5, 1))
    data = deep.mnist.Images(*digits(512))
    keep = tmp_path / "small"
    found = deep.measure(small, data, data, 3, 2, keep)
    assert found["compressed_error"] < 10
    assert found["file"] == keep.with_suffix(".hc").stat().st_size < found["packed_file"]
    assert [(each["layer"], each["kept"], each["bits"]) for each in found["layers"]] == [
        ("0", 0.5, 3),
        ("3", 0.75, 3),
    ]
    stages = ("whole", "pruned", "tuned")
    epochs = [epochs_of(keep.with_name(f"small_{stage}.safetensors")) for stage in stages]
    assert epochs == [3, 2, deep.TUNING]
    again = deep.measure(small, data, data, 3, 2, keep)
    assert again == found, "every stage goes on from its end"
    assert deep.layer_table(found, small).row_count == 2
    assert deep.networks_table([found]).row_count == 1
    pytest.importorskip("matplotlib", reason="the plots need the extra `benchmarks`")
    deep.draw(tmp_path / "plot.png", [found])
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_huffman_lengths_of_a_known_code(papers: Any) -> None:
    """Frequencies 4, 2, 1, 1 have lengths 1, 2, 3, 3; and nothing is below the entropy."""
    import numpy as np

    coders = papers("entropy")
    values = np.repeat(np.arange(4, dtype=np.uint8), [4, 2, 1, 1])
    assert coders.huffman(values, 4) == (14 + 16) / 8
    assert coders.limit(values) == 14 / 8
    assert coders.huffman(np.zeros(10, np.uint8), 2) == (10 + 8) / 8


def test_coders_are_compared_on_what_a_file_holds(papers: Any, tmp_path: Path) -> None:
    import numpy as np

    coders = papers("entropy")
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16)), torch.randn(4, 32)
    file = tmp_path / "model.hc"
    hc.compile(model, (x,), hc.Sparse(0.5, bits=3), progress=False).save(file)
    found = coders.parts(file)
    assert {part: len(layers) for part, layers in found.items()} == {"places": 2, "codes": 2}
    layers = found["codes"]
    assert sum(len(each.values) for each in layers) == (32 * 64 + 64 * 16) / 2
    record = coders.measure(layers, {"none": lambda data: data})
    assert json.loads(json.dumps(record)) == record, "it is kept as JSON"
    sizes = record["bytes"]
    assert sizes["entropy"] <= min(sizes["Huffman"], sizes["rANS"])
    assert sizes["entropy"] == sum(coders.limit(np.asarray(each.values)) for each in layers)
    assert sizes["none"] == sum(min(len(each.packed), len(each.values)) for each in layers)
    assert record["numbers"] == 1536 and record["encode"] >= 0 <= record["decode"]

    pytest.importorskip("matplotlib", reason="the plots need the extra `benchmarks`")
    coders.main([file], out=tmp_path)
    kept = (tmp_path / "entropy.json").read_text()
    assert [each["part"] for each in json.loads(kept)[0]["results"]] == [*found]
    coders.main([file], out=tmp_path)
    assert (tmp_path / "entropy.json").read_text() == kept, "nothing is measured twice"
    assert (tmp_path / "entropy.png").stat().st_size > 10_000


@pytest.mark.parametrize("rule", ["pq_index", "column_norm"])
def test_rounds_of_auto_go_on_from_one_another(papers: Any, rule: str) -> None:
    again = papers("rounds")
    data = digits(512)
    model = nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 4))
    papers("train").train(model, *data, epochs=10, rate=0.1)
    subject = papers("subjects").Subject("mlp", "an MLP", model, data, data, 0.01)
    found = again.rounds(subject, rule, 3, epochs=1)["rounds"]
    assert [each["round"] for each in found] == [1, 2, 3]
    left = 48
    for each in found:
        left -= each["removed"]
        assert each["parameters"] == (left * 21 + 4) / (48 * 21 + 4)
        assert sum(each["verdicts"].values()) == 1
    assert left < 48 and found[-1]["after"] > 80
    assert [row[0] for row in rows(again.verdicts(found))] == ["1", "2", "3"]


@pytest.mark.parametrize("way", ["k-means", "tables", "straight-through", "soft"])
def test_learnt_codebooks_are_measured_from_their_files(papers: Any, four_shades: Any, way: str) -> None:
    learnt = papers("learnt_codebooks")
    model, *data = four_shades
    found = learnt.measure(model, learnt.Way(way), 4, data, data, epochs=1)
    assert found["top1"] > 60
    assert found["hc"] > 2 * 288 * 40 / 8 and found["onnx"] < 4 * 288 * 40 / 2


def test_taught_codebooks_learn_outputs_and_no_labels(papers: Any, four_shades: Any) -> None:
    learnt = papers("learnt_codebooks")
    model, images, labels = four_shades
    found = [
        learnt.measure(model, learnt.Way.soft, 4, (images, each), (images, labels), epochs=2, taught=taught)[
            "top1"
        ]
        for each in (labels, (labels + 1) % 4)
        for taught in (True, False)
    ]
    assert found[0] == found[2] and found[1] != found[3]


def test_the_table_and_the_knee_of_learnt_codebooks(papers: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the plots need the extra `benchmarks`")
    learnt = papers("learnt_codebooks")
    found = [
        {"way": "soft", "weights": count, "top1": top1, "onnx": 1000 * count, "hc": 900 * count}
        for count, top1 in ((2, 80.0), (4, 86.0), (8, 88.0), (16, 88.4), (32, 88.3))
    ]
    assert learnt.knee(found) == 8
    assert learnt.accuracies(found).row_count == 5
    assert cells(learnt.steps_down(found))["soft"] == ["-8.40", "-2.40", "-0.40", "-0.10"], "against 16"
    assert cells(learnt.steps_down(found))["LQ-Nets, ResNet-18, ImageNet"] == ["", "-2.00", "-0.70", ""]
    assert [*cells(learnt.steps_down(found[:3]))] == [*learnt.PUBLISHED], "nothing to compare at"
    learnt.draw(tmp_path / "plot.png", "a network", 88.5, found)
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_resnet34_for_small_images(papers: Any) -> None:
    papers("learnt_codebooks")
    model = importlib.import_module("zoo.cifar").resnet34().eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == 21_282_122
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
