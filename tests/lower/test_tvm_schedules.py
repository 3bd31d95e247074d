"""Loops of TVM's: in a good order, and shared among threads where they are long."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

tvm = pytest.importorskip("tvm", reason="TVM is not installed: pip install 'hashcompile[tvm]'")

from tvm import te, tirx  # noqa: E402 - needs TVM

from hashcompile.lower.tvm_schedules import WORTH_THREADS, Loops  # noqa: E402

BATCH = tirx.Var("batch", "int64")
LONG = WORTH_THREADS // 64


def doubled(rows: Any, columns: int) -> Any:
    x = te.placeholder((rows, columns), name="x")
    return te.create_prim_func([x, te.compute((rows, columns), lambda i, j: x[i, j] * 2.0, name="y")])


def summed(rows: Any, columns: int) -> Any:
    x, j = te.placeholder((rows, 4, columns), name="x"), te.reduce_axis((0, columns), name="j")
    return te.create_prim_func([x, te.compute((rows, 4), lambda i, k: te.sum(x[i, k, j], axis=j), name="y")])


@pytest.mark.parametrize(
    ("function", "parallel"),
    [
        (doubled(LONG, 64), True),
        (doubled(LONG - 1, 64), False),
        (doubled(BATCH, WORTH_THREADS), True),
        (doubled(BATCH, 64), False),
        (summed(LONG, 16), True),
        (summed(7, 32), False),
    ],
)
def test_threads_share_what_is_long(function: Any, parallel: bool) -> None:
    made = Loops().apply(function, None, False)
    assert made is not None
    assert ("T.parallel" in made.mod.script()) == parallel


def test_a_sum_of_one_term_is_no_copy() -> None:
    x, j = te.placeholder((6, 1), name="x"), te.reduce_axis((0, 1), name="j")
    total = te.compute((6, 5), lambda i, k: te.sum(x[i, j], axis=j), name="total")
    y = te.compute((6, 5), lambda i, k: total[i, k] * 0.3 + 1.0, name="y")
    made = Loops().apply(te.create_prim_func([x, y]), None, False)
    assert made is not None
    run = tvm.compile(made.mod, "llvm")
    given, got = np.arange(6, dtype=np.float32)[:, None], tvm.runtime.empty((6, 5))
    run(tvm.runtime.tensor(given), got)
    np.testing.assert_allclose(got.numpy(), np.broadcast_to(given * 0.3 + 1, (6, 5)), rtol=1e-6)
