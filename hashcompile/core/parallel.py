"""Parallel work whose result does not depend on the number of threads.

A BLAS that splits one product over threads rounds differently for each thread count. So work is cut into
items whose number depends on shapes alone, each item runs on one thread, and the items run side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


_outside: ContextVar[int] = ContextVar("threads outside of the outermost one_thread", default=0)


@contextmanager
def one_thread() -> Iterator[int]:
    """Torch on one thread inside, as many as before outside; gives their number outside of the outermost one.

    What is cut into items for `deterministic_map` still runs on all of them.
    """
    before = torch.get_num_threads()
    threads = _outside.get() or before
    token = _outside.set(threads)
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(before)
        _outside.reset(token)


def deterministic_map(fn: Callable[[T], R], items: Iterable[T], threads: int | None = None) -> list[R]:
    """`[fn(item) for item in items]`, side by side on `threads` threads; by default, as many as torch has (had, outside
    of `one_thread`).

    Bit-identical for every thread count: inside an item torch has one thread, so a nested map runs in line.
    """
    todo = list(items)
    with one_thread() as current:
        workers = min(threads or current, len(todo))
        if workers < 2:
            return [fn(item) for item in todo]
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(fn, todo))
