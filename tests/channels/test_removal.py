"""Removal is exact: float64, two batch sizes, garbage in what went."""

from __future__ import annotations

import pytest

from tests import models
from tests.channels.exact import EXACT, captured, removal


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
@pytest.mark.parametrize("name", models.ZOO)
def test_the_zoo(name: str, share: float) -> None:
    model, inputs = models.build(name)
    assert removal(captured(model, *inputs(2)), share).error < EXACT
