"""The same inputs, seed and versions give the same bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hashcompile as hc
from tests.models import build

SCRIPT = "import sys; from tests.test_reproducible import write; write(int(sys.argv[1]), sys.argv[2])"


def write(threads: int, folder: str) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    for name in ("cnn", "attention", "tied"):
        model, inputs = build(name)
        compiled = hc.compile(model, inputs(2), calibration=[inputs(40), inputs(33), inputs(7)], verify=False)
        compiled.export_onnx(f"{folder}/{name}.onnx")
        compiled.save(f"{folder}/{name}.hc")
    torch.set_num_threads(before)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """Digests of what this process wrote with 1 thread, and another one, with other hashes of strings, with 2."""
    here, there = (tmp_path_factory.mktemp(f"threads{threads}") for threads in (1, 2))
    other = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "2", str(there)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONHASHSEED": "2", "OMP_NUM_THREADS": "2"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with other:  # it imports meanwhile
        write(1, str(here))
        errors = other.communicate()[1]
    assert other.returncode == 0, errors
    return [digests(here), digests(there)]


def test_onnx_bytes_do_not_depend_on_threads_or_process(saved: list[dict[str, str]]) -> None:
    one, two = ({k: v for k, v in found.items() if k.endswith(".onnx")} for found in saved)
    assert len(one) == 3 and one == two


def test_hc_bytes_do_not_depend_on_threads_or_process(saved: list[dict[str, str]]) -> None:
    one, two = ({k: v for k, v in found.items() if k.endswith(".hc")} for found in saved)
    assert len(one) == 3 and one == two


def test_onnx_bytes_do_not_depend_on_what_ran_before(tmp_path: Path) -> None:
    model, inputs = build("mlp")
    for seed in range(2):
        torch.manual_seed(seed)  # the caller's generator is neither read nor moved
        state = torch.random.get_rng_state()
        compiled = hc.compile(model, inputs(2), calibration=[inputs(16)])
        assert torch.equal(torch.random.get_rng_state(), state)
        for _ in range(2):
            compiled.export_onnx(tmp_path / f"{seed}.onnx")
    assert (tmp_path / "0.onnx").read_bytes() == (tmp_path / "1.onnx").read_bytes()
