"""Parallel maps: order, one thread inside, the caller's threads restored."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from hashcompile.core.parallel import deterministic_map, one_thread


@pytest.fixture(autouse=True, params=[1, 2, 5])
def count(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_items_run_on_one_thread_in_order(count: int, threads: int | None) -> None:
    seen = deterministic_map(lambda i: (i, torch.get_num_threads()), range(7), threads)
    assert seen == [(i, 1) for i in range(7)]
    assert torch.get_num_threads() == count


def test_nested_maps_stay_on_one_thread() -> None:
    def inner(_: int) -> list[int]:
        return deterministic_map(lambda _: torch.get_num_threads(), range(3))

    assert deterministic_map(inner, range(3)) == [[1, 1, 1]] * 3


def test_errors_reach_the_caller_and_threads_are_restored(count: int) -> None:
    with pytest.raises(ZeroDivisionError):
        deterministic_map(lambda i: 1 // i, range(4))
    assert torch.get_num_threads() == count


def test_one_thread_tells_what_was_there(count: int) -> None:
    with one_thread() as threads:
        assert (threads, torch.get_num_threads()) == (count, 1)
    assert torch.get_num_threads() == count
    assert deterministic_map(abs, []) == []
