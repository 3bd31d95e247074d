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

SCRIPT = """
import sys, torch, hashcompile as hc
from tests.models import build
torch.set_num_threads(int(sys.argv[1]))
for name in ("cnn", "attention", "tied"):
    model, inputs = build(name)
    compiled = hc.compile(model, inputs(2), calibration=[inputs(40), inputs(33), inputs(7)], verify=False)
    compiled.export_onnx(f"{sys.argv[2]}/{name}.onnx")
    compiled.save(f"{sys.argv[2]}/{name}.hc")
"""


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """Digests of what two processes wrote, with 1 and 2 threads."""
    found = []
    for threads in ("1", "2"):
        folder = tmp_path_factory.mktemp(f"threads{threads}")
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, threads, str(folder)],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONHASHSEED": threads, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        found.append(digests(folder))
    return found


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
