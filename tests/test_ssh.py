"""Measuring over ssh: one call, nothing left behind, and an error says what that machine lacks. `ssh` runs here."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hashcompile.bench import Settings, bench, contenders
from hashcompile.core.errors import ArtifactError, ConfigError
from hashcompile.ssh import Host

QUICK = Settings(runs=20, threads=1)

SSH = """#!/bin/sh
while [ "$1" = -o ]; do shift 2; done
echo "$1" >> {calls}
[ "$1" = nobody@nowhere ] && {{ echo "ssh: Could not resolve hostname nowhere" >&2; exit 255; }}
echo "Welcome to this device"
shift
TMPDIR={folder} exec sh -c "$*"
"""


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the far end makes its own; `calls` beside it lists the hosts that were asked for."""
    folder = tmp_path / "a device"
    folder.mkdir()
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    script = SSH.format(calls=shlex.quote(str(tmp_path / "calls")), folder=shlex.quote(str(folder)))
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def there() -> Host:
    return Host("pi@kitchen", sys.executable)


def test_one_call_measures_there_and_leaves_nothing(
    device: Path, there: Host, tmp_path: Path, write_mlp: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = write_mlp(tmp_path / "small.onnx")
    apart = tmp_path / "apart"
    apart.mkdir()
    # of the same name, with its weights beside it
    deep = write_mlp(apart / "small.onnx", layers=100, external=True)
    monkeypatch.chdir(tmp_path)
    first, second = bench(contenders([Path("small.onnx"), deep]), QUICK, on=there)
    assert (tmp_path / "calls").read_text() == "pi@kitchen\n"
    assert not list(device.glob("hashcompile-*"))
    assert first.file == "small.onnx" and first.file_bytes == small.stat().st_size
    assert second.file_bytes > deep.stat().st_size, "and its external data"
    assert second.ratio > 2 and first.runs == second.runs == 20
    assert first.resident_bytes > 0 and first.load_ms > 0 and first.inputs == {"x": [1, 128]}


def test_what_goes_wrong_there_is_told_and_leaves_nothing(
    device: Path, there: Host, tmp_path: Path, write_mlp: Callable[..., Path]
) -> None:
    model = write_mlp(tmp_path / "m.onnx")
    cases = (
        (Host("nobody@nowhere", sys.executable), "ssh cannot reach nobody@nowhere: .*resolve hostname"),
        (Host("pi@kitchen", "no-such-python"), "pi@kitchen has no no-such-python: name one with --python"),
        (Host("pi@kitchen", "false"), "pi@kitchen could not measure: exit code 1"),
    )
    for host, message in cases:
        with pytest.raises(ArtifactError, match=message):
            bench(contenders([model]), QUICK, on=host)
    model.write_bytes(model.read_bytes().replace(b"MatMul", b"MatMal"))
    with pytest.raises(ArtifactError, match=r"on pi@kitchen: \S*m\.onnx: .*MatMal"):
        bench(contenders([model]), QUICK, on=there)
    assert not list(device.glob("hashcompile-*"))


def test_hosts_that_are_none_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: Host, write_mlp: Callable[..., Path]
) -> None:
    for name in ("", "-oProxyCommand=x", "a b"):
        with pytest.raises(ConfigError, match="is no host"):
            Host(name)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="there is no ssh on this machine"):
        bench(contenders([write_mlp(tmp_path / "m.onnx")]), QUICK, on=there)
