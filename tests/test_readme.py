"""What a user pastes must run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
INTRODUCTION, *SECTIONS = re.split(r"(?m)^## ", (ROOT / "docs" / "methods.md").read_text())


def test_the_snippet_runs_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "snippet.py").write_text(CODE.findall((ROOT / "README.md").read_text())[0])
    done = subprocess.run(
        [sys.executable, "snippet.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {"model.onnx", "model.hc"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.partition("\n")[0])
def test_every_method_has_examples_that_run(
    section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a section, one after the other, behind the lines that all of them go on from."""
    monkeypatch.chdir(tmp_path)
    examples = CODE.findall(section)
    assert examples
    names: dict[str, object] = {}
    for code in (*CODE.findall(INTRODUCTION), *examples):
        exec(code, names)
