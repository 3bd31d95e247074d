"""What every test may ask for."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the larger real data sets; the tests that want it say so when they skip."""
    if not (folder := os.environ.get("HASHCOMPILE_DATA")):
        pytest.skip("set HASHCOMPILE_DATA to the folder with the real data sets to run this test")
    path = Path(folder)
    assert path.is_dir(), f"HASHCOMPILE_DATA={folder} is not a folder"
    return path
