"""Every field of every method, schedule and recipe against values of every kind: what is wrong is a ConfigError."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import hashcompile as hc

NAN, INF, HUGE = float("nan"), float("inf"), 2**70
PILE = [
    None,
    True,
    "x",
    "",
    [],
    {},
    {0: None},
    -1,
    0,
    1,
    3,
    0.5,
    1.5,
    NAN,
    INF,
    HUGE,
    -HUGE,
    "auto",
    (1, 2),
    "2:4",
]
PILE += ["4:2", "0:4", "2:4:8", "٢:٤", b"2:4", 24, torch.tensor(0.5), object(), lambda *_: None]
MODEL = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))
SHARES, TRAINED = (0, 0.5), {"method": hc.Codebook(2, learn=True), "steps": 10}


def whole(least: int, most: int = HUGE) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= most


def flag(value: Any) -> bool:
    return isinstance(value, bool)


def within(*allowed: Any) -> Callable[[Any], bool]:
    return lambda value: any(type(value) is type(each) and value == each for each in allowed)


def anything(value: Any) -> bool:
    return True


def either(*tests: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: any(test(value) for test in tests)


none, number = within(None), within(0, 1, 3, 0.5, 1.5)
named = either(none, lambda value: isinstance(value, str) and bool(value))


def schedule(**given: Any) -> hc.PruningSchedule:
    return hc.PruningSchedule(MODEL, **given)


def training(**given: Any) -> hc.CodebookTraining:
    return hc.CodebookTraining(copy.deepcopy(MODEL), **given)


TABLE: list[tuple[Callable[..., Any], dict[str, Any], str, Callable[[Any], bool]]] = [
    (hc.Codebook, {}, "bits", whole(1, 8)),
    (hc.Codebook, {}, "granularity", within()),
    (hc.Codebook, {"granularity": "per_group"}, "group_size", within(HUGE)),
    (hc.Codebook, {}, "learn", flag),
    (hc.Hashed, {}, "ratio", within(0.5)),
    (hc.Hashed, {}, "tile", flag),
    (hc.Hashed, {}, "start", within()),
    (hc.Hashed, {}, "seed", whole(-HUGE)),
    (hc.Hashed, {}, "pool", named),
    (hc.Sparse, {}, "amount", within(*SHARES, "auto")),
    (hc.Sparse, {"amount": 0.5}, "importance", within()),
    (hc.Sparse, {"amount": 0.5}, "scope", within()),
    (hc.Sparse, {}, "pattern", within("2:4")),
    (hc.Sparse, {"amount": 0.5}, "bits", either(none, whole(1, 8))),
    (hc.Sparse, {"amount": 0.5}, "correction", flag),
    (hc.Sparse, {"amount": 0.5, "bits": 4}, "learn", flag),
    (hc.Sparse, {"amount": 0.5, "importance": "snip"}, "loss", either(none, callable)),
    (hc.LowRank, {}, "rank", whole(1)),
    (hc.LowRank, {}, "energy", within(1, 0.5)),
    (hc.LowRank, {}, "error", within(*SHARES)),
    (hc.LowRank, {"energy": 0.5}, "by", within("auto")),
    (hc.LowRank, {"energy": 0.5}, "conv", within("auto")),
    (hc.LowRank, {"energy": 0.5}, "round_to", whole(1)),
    (hc.Sampled, {}, "columns", whole(1)),
    (hc.Sampled, {}, "share", within(0.5)),
    (hc.Sampled, {"share": 0.5}, "seed", whole(0, 2**63 - 1)),
    (hc.Wide, {}, "recall", within(0.5)),
    (hc.Wide, {}, "bits", either(none, within(24))),
    (hc.Wide, {}, "code_bits", either(none, lambda value: whole(1, 8)(value) and value in (1, 2, 4, 8))),
    (hc.Wide, {}, "classes", whole(2)),
    (hc.Wide, {}, "seed", whole(0, 2**63 - 1)),
    (schedule, {"end": 10}, "amount", within(*SHARES, "auto")),
    (schedule, {"amount": 0.5, "end": 10}, "initial", within(*SHARES)),
    (schedule, {"amount": 0.5}, "end", whole(1)),
    (schedule, {"amount": 0.5, "end": 10}, "begin", whole(0, 9)),
    (schedule, {"amount": 0.5, "end": 10}, "every", whole(1)),
    (schedule, {"amount": 0.5, "end": 10}, "importance", within()),
    (schedule, {"amount": 0.5, "end": 10}, "scope", within()),
    (schedule, {"end": 10}, "pattern", within("2:4")),
    (schedule, {"amount": 0.5, "end": 10}, "names", none),
    (training, {"method": hc.Codebook(2, learn=True)}, "steps", whole(1)),
    (training, TRAINED, "by", within()),
    (training, TRAINED, "temperature", within()),
    (training, TRAINED, "hold", within(0, 1, 0.5)),
    (training, TRAINED, "compute", within()),
    (training, {"steps": 10}, "method", within()),
]


@pytest.mark.parametrize(
    ("made", "given", "name", "fits"), TABLE, ids=[f"{row[0].__name__}-{row[2]}" for row in TABLE]
)
def test_every_field(
    made: Callable[..., Any], given: dict[str, Any], name: str, fits: Callable[[Any], bool]
) -> None:
    for value in PILE:
        if fits(value):
            made(**{**given, name: value})
            continue
        try:
            made(**{**given, name: value})
        except hc.ConfigError:
            continue
        pytest.fail(f"{made.__name__}({name}={value!r}) was taken")


@pytest.mark.parametrize(
    "value", [(INF, 1.0), (1.0, 0.0), (0.5, 1.0), (True, 0.5), ("a", "b"), (1.0, NAN), [1.0, 0.5]]
)
def test_temperatures(value: Any) -> None:
    with pytest.raises(hc.ConfigError, match="temperature"):
        training(**TRAINED, temperature=value)
    training(**TRAINED, temperature=(1.0, 1.0))


@pytest.mark.parametrize("names", [["0.weight", "x"], ["x"], [1], "0.weight", []])
def test_names_of_parameters(names: Any) -> None:
    with pytest.raises(hc.ConfigError, match="PruningSchedule"):
        schedule(amount=0.5, end=10, names=names)


@pytest.mark.parametrize(
    "given",
    [
        {"amount": 0.5, "end": 5, "begin": 5},
        {"amount": 0.5, "pattern": "2:4", "end": 5},
        {"end": 5},
        {"amount": "auto", "scope": "global", "end": 5},
        {"amount": "auto", "initial": 0.2, "end": 5},
        {"pattern": "2:4", "scope": "global", "end": 5},
    ],
)
def test_what_does_not_go_together(given: dict[str, Any]) -> None:
    with pytest.raises(hc.ConfigError, match="PruningSchedule"):
        schedule(**given)


@pytest.mark.parametrize(
    "method", [{0: None}, {0: hc.Codebook()}, [{None: hc.Codebook()}], hc.Codebook, "4 bit"]
)
def test_methods_of_compile(method: Any) -> None:
    with pytest.raises(hc.ConfigError):
        hc.compile(MODEL, (torch.randn(2, 32),), method)


@pytest.mark.parametrize(
    "given",
    [
        *({"steps": value} for value in (0, "x", 2.5, None, INF)),
        *({"every": value} for value in (0, 1.5, None)),
        *({"amount": value} for value in (1.0, "x", [0.5], {0: 0.5}, {"zz": 0.5})),
        *({"bits": value} for value in (9, "x", [4], {"zz": 4})),
        {"train": None},
        {"fine_tune": 3},
    ],
)
def test_deep_compression(given: dict[str, Any]) -> None:
    good: dict[str, Any] = {"train": lambda module, step: None, "steps": 5}
    with pytest.raises(hc.ConfigError):
        hc.recipes.deep_compression(MODEL, (torch.randn(2, 32),), **(good | given))
