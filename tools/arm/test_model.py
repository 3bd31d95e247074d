"""On ARM: ONNX Runtime with our library gives the outputs that the models of model.py gave where they were made."""

import platform
from pathlib import Path

import numpy as np
import pytest

from hashcompile_runtime import session

MODELS = sorted((Path(__file__).parent / "models").glob("*.onnx"))


def test_the_models_are_here_and_this_is_arm():
    assert [path.stem for path in MODELS] == ["float", "int8"]
    assert platform.machine() == "aarch64"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_outputs(path, threads):
    """int8: exact integer sums, so not one bit may differ. float: the bound of fp32 sums in any order."""
    data = np.load(path.with_suffix(".npz"))
    running = session(path, threads=threads)
    got = running.run(None, {running.get_inputs()[0].name: data["ids"]})[0]
    assert np.all(np.abs(got - data["wanted"]) <= data["bound"])
