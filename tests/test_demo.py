"""What `make demo` promises: one table, much smaller, as accurate, in three ways to run it."""

import re
from pathlib import Path

import pytest

from hashcompile import demo


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo.run(tmp_path)
    header, *rows = capsys.readouterr().out.strip().splitlines()
    assert header.split("  ")[0] == "handwritten digits"
    assert [row.split(":")[0] for row in rows] == ["before", "after", "after"]
    accuracies = [float(share) for row in rows for share in re.findall(r"([\d.]+) %", row)]
    assert len(accuracies) == 3
    assert min(accuracies) > 97
    assert max(accuracies) - min(accuracies) < 1, "4 bits with calibration cost less than a point here"
    before, after = (tmp_path / f"digits_{name}.onnx" for name in ("fp32", "4bit"))
    assert before.stat().st_size > 6 * after.stat().st_size
    assert f"{before.stat().st_size:,}" in rows[0]
    assert f"{after.stat().st_size:,}" in rows[1]
