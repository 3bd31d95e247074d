"""Staged files: whole or not there, and what stood there before survives every failure."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hashcompile.core.errors import ArtifactError
from hashcompile.core.files import staged


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_appear_together(tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    target.write_bytes(b"old")
    with staged(target) as stage:
        (stage / "m.onnx").write_bytes(b"new")
        (stage / "m.data").write_bytes(b"weights")
        assert target.read_bytes() == b"old", "nothing moves before the end"
    assert names(tmp_path) == ["m.data", "m.onnx"]
    assert target.read_bytes() == b"new"
    assert (tmp_path / "m.data").read_bytes() == b"weights"


def test_the_file_of_that_name_moves_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        moved.append(Path(target).name)
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with staged(tmp_path / "b") as stage:
        for name in "abc":
            (stage / name).touch()
    assert moved[-1] == "b" and sorted(moved) == ["a", "b", "c"]


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt()])
def test_an_exception_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "m"
    target.write_bytes(b"old")

    def fail() -> None:
        with staged(target) as stage:
            (stage / "m").write_bytes(b"half")
            raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is error
    assert names(tmp_path) == ["m"]
    assert target.read_bytes() == b"old"


def test_a_full_disk_is_an_artifact_error(tmp_path: Path) -> None:
    target = tmp_path / "m"
    target.write_bytes(b"old")

    def fail() -> None:
        with staged(target):
            raise OSError(28, "No space left on device")

    with pytest.raises(ArtifactError, match="No space left"):
        fail()
    assert names(tmp_path) == ["m"]
    assert target.read_bytes() == b"old"


def test_a_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nowhere"), staged(tmp_path / "nowhere" / "m"):
        pytest.fail("the body must not run")


def test_a_directory_is_no_target(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArtifactError, match="is a directory"), staged(tmp_path / "folder"):
        pytest.fail("the body must not run")
    assert names(tmp_path) == ["folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_directory(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(ArtifactError, match="Permission denied"), staged(closed / "m"):
        pytest.fail("the body must not run")


def test_a_directory_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a user whom no permission stops."""

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(ArtifactError, match="Permission denied"), staged(tmp_path / "m"):
        pytest.fail("the body must not run")
