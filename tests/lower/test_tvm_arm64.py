"""Libraries for 64-bit ARM, made on any machine. `make test-arm` runs some."""

from __future__ import annotations

import struct
from pathlib import Path
from platform import machine

import pytest

import hashcompile as hc
from hashcompile.core.errors import ConfigError, ExportError
from hashcompile.model_file import read
from tests.models import build

tvm = pytest.importorskip("tvm", reason="TVM is not installed: pip install 'hashcompile[tvm]'")

from hashcompile.lower import compiler, cross_archive  # noqa: E402 - needs TVM
from hashcompile.lower.tvm_library import platform  # noqa: E402
from hashcompile.lower.tvm_nodes import MAGIC  # noqa: E402
from hashcompile.lower.tvm_platform import ARM64  # noqa: E402

SHARED, AARCH64 = 3, 183  # e_type and e_machine of the ELF header


@pytest.fixture
def cross_compiler() -> None:
    try:
        compiler.arm64()
        cross_archive.cmake()
    except ExportError as error:
        pytest.skip(str(error))


@pytest.mark.timeout(1800)  # compiles all kernels where that was not done before
@pytest.mark.usefixtures("cross_compiler")
def test_a_library_for_arm64_is_linked(tmp_path: Path) -> None:
    model, inputs = build("cnn")
    compiled = hc.compile(model, inputs(2))
    (check,) = compiled.export_tvm(tmp_path / "m.so", target="arm64")
    assert check.error <= check.tolerance
    (file,) = tmp_path.iterdir()
    library = file.read_bytes()
    assert library[:6] == b"\x7fELF\x02\x01", "64 bits, little-endian"
    assert struct.unpack_from("<HH", library, 16) == (SHARED, AARCH64)
    assert read(file).machine == "aarch64", "and what it takes is told here"
    assert all(part in library for part in (MAGIC, b"codebook_i8_dotprod", b"codebook_i8_i8mm"))
    named, given = platform("arm64"), platform(tvm.target.Target(ARM64))
    assert (named.archive, named.compiler, named.native) == (given.archive, given.compiler, given.native)


def test_arm64_is_this_machine_where_it_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hashcompile.lower.tvm_platform.machine", lambda: "aarch64")
    here = platform("arm64")
    assert here.native and here.compiler == compiler.NATIVE


@pytest.mark.parametrize("triple", ["riscv64-linux-gnu", "aarch64-linux-android", "aarch64-apple-darwin"])
def test_other_machines_are_refused(triple: str) -> None:
    with pytest.raises(ConfigError, match="aarch64-linux-gnu"):
        platform(tvm.target.Target({"kind": "llvm", "mtriple": triple}))


@pytest.mark.skipif(machine() == "aarch64", reason="this machine needs no cross compiler")
def test_what_to_install_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(compiler, "find_spec", lambda _: None)
    model, inputs = build("mlp")
    compiled = hc.compile(model, inputs(2))
    with pytest.raises(ExportError, match=r"hashcompile\[arm64\].*g\+\+-aarch64-linux-gnu"):
        compiled.export_tvm(tmp_path / "m.so", target="arm64")
    monkeypatch.setattr(compiler, "find_spec", lambda _: True)
    assert compiler.arm64() == compiler.ARM64_ZIG


PROJECT = """\
cmake_minimum_required(VERSION 3.20)
project(small LANGUAGES CXX)
add_library(hashcompile_tvm STATIC small.cc)
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cross_compiler: None) -> Path:
    """Sources of a library that compiles in no time, and a cache of its own."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "CMakeLists.txt").write_text(PROJECT)
    (source / "small.cc").write_text("int one() { return 1; }")
    monkeypatch.setattr("hashcompile_runtime.source_path", lambda: source)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return source


def recipe() -> cross_archive.Recipe:
    return cross_archive.for_machine(compiler.arm64(), "aarch64")


def test_kernels_are_compiled_once_for_the_same_sources(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cross_archive.archive(recipe(), False)
    assert first.read_bytes().startswith(b"!<arch>\n")
    with monkeypatch.context() as change:
        change.setattr(cross_archive, "configuration", None)  # would be called to compile
        assert cross_archive.archive(recipe(), False) == first
    (small / "small.cc").write_text("int one() { return 2; }")
    second = cross_archive.archive(recipe(), False)
    assert second != first and sorted(second.parent.iterdir()) == sorted([first, second])
    monkeypatch.setenv("CXXFLAGS", "-O1")
    assert cross_archive.archive(recipe(), False) not in (first, second)


def test_what_does_not_compile_leaves_nothing(small: Path) -> None:
    (small / "small.cc").write_text("#error no kernels today")
    with pytest.raises(ExportError, match="no kernels today"):
        cross_archive.archive(recipe(), False)
    assert not list(cross_archive.cache().iterdir())


def test_a_cache_that_cannot_be_written_is_named(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(small / "small.cc"))
    with pytest.raises(ExportError, match=r"small\.cc.*Not a directory"):
        cross_archive.archive(recipe(), False)
