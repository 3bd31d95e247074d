"""Files to load, and to damage."""

from __future__ import annotations

import pytest

import hashcompile as hc
from tests.container.saved import NAMES, Saved


@pytest.fixture(scope="module", params=NAMES)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return Saved(request.param, tmp_path_factory.mktemp("hc"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return Saved(
        "mixed", tmp_path_factory.mktemp("hc"), method={"*": hc.Codebook(3, "per_group", 16), "fc": None}
    )
