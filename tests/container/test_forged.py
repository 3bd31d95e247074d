"""A hostile `.hc` file, whose checksums are right, is refused and runs nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import pytest

import hashcompile as hc
from hashcompile.core.encoded import encoded_weights
from hashcompile.core.untrusted import check_graph
from tests.container.saved import GRAPH, MANIFEST, TENSORS, Change, Saved, forged, same


def test_no_pickle(saved: Saved) -> None:
    with zipfile.ZipFile(saved.path) as archive:
        assert sorted(archive.namelist()) == sorted([MANIFEST, GRAPH, TENSORS])
        for name in archive.namelist():
            data = archive.read(name)
            if name == TENSORS:
                header = int.from_bytes(data[:8], "little")
                json.loads(data[8 : 8 + header])
            else:
                json.loads(data)
            with pytest.raises(ValueError):  # noqa: PT011 - of pickletools: not a pickle from its first byte on
                list(pickletools.genops(data))
            assert b"\x80\x02c" not in data and b"\x80\x04\x95" not in data and b"\x80\x03}" not in data


def test_loading_never_unpickles(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(f"pickle.{name}", refuse)
    monkeypatch.setattr("torch.load", refuse)
    hc.load(saved.path)


def test_the_forger_can_forge(small: Saved) -> None:
    same(hc.load(forged(small)), small.compiled)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", "onnx", "not a hashcompile file"),
        ("format", None, "not a hashcompile file"),
        ("version", 3, "is of version 3; this hashcompile reads 1 to 2"),
        ("version", "1", "is of version 1"),
        ("version", None, "version None"),
    ],
)
def test_other_formats_and_versions(small: Saved, key: str, value: Any, message: str) -> None:
    path = forged(small, lambda manifest: manifest.update({key: value}))
    with pytest.raises(hc.ArtifactError, match=message):
        hc.load(path)


@pytest.mark.parametrize("member", [GRAPH, TENSORS])
def test_members_fit_their_checksums(small: Saved, member: str) -> None:
    """Content that the zip's own CRC takes for right."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["sha256"][member] = hashlib.sha256(b"").hexdigest()

    with pytest.raises(hc.ArtifactError, match=rf"{member} does not match its checksum"):
        hc.load(forged(small, change))


def code(manifest: dict[str, Any]) -> dict[str, Any]:
    return next(iter(manifest["codes"].values()))


def bits(value: Any) -> Change:
    return lambda manifest: code(manifest).update(bits=value)


@pytest.mark.parametrize(
    "change",
    [
        bits(4),
        bits(0),
        bits(64),
        bits("3"),
        bits(None),
        lambda m: code(m).update(group_rows=-1),
        lambda m: code(m).update(method="hashed"),
        lambda m: code(m)["view"].update(shape=[1 << 40, 1 << 40]),
        lambda m: code(m)["view"].update(shape=[-1, -36]),
        lambda m: code(m)["view"].update(shape="x"),
        lambda m: code(m)["view"].update(transposed_groups=3),
        lambda m: m.update(codes={}),
        lambda m: m.update(codes=None),
        lambda m: m.update(samples=5),
        lambda m: m.pop("signature"),
        lambda m: m.update(signature={}),
        lambda m: m.update(parameters=None),
        lambda m: m.update(aliases={"a": "b"}),
        lambda m: m.pop("call"),
        lambda m: m.pop("extra"),
        lambda m: m["extra"]["plan"][0]["config"].update(bits=99),
        lambda m: m["extra"].update(quality="x"),
        lambda m: m["extra"].update(plan=None),
        lambda m: m["extra"].update(plan=[{}]),
        lambda m: m["extra"].pop("plan"),
    ],
)
def test_a_forged_manifest(small: Saved, change: Change) -> None:
    with pytest.raises(hc.ArtifactError, match=r"forged\.hc"):
        hc.load(forged(small, change))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: code(m).update(group_rows=17),  # no kernel's tile
        lambda m: m["extra"]["plan"][0].update(method="hashed"),
        lambda m: m.update(sha256=None),
        lambda m: m.update(sha256=[]),
    ],
)
def test_a_forged_manifest_of_another_kind(small: Saved, change: Change) -> None:
    with pytest.raises(hc.ArtifactError, match=r"forged\.hc"):
        hc.load(forged(small, change))


@pytest.mark.parametrize("data", [b"", bytes(8), b"\xff" * 8, b"\xff" * 100, (1 << 62).to_bytes(8, "little")])
def test_forged_tensors(small: Saved, data: bytes) -> None:
    with pytest.raises(hc.ArtifactError, match=r"forged\.hc"):
        hc.load(forged(small, tensors=data))


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"[]", b'{"graph_module": 3}'])
def test_a_forged_graph(small: Saved, data: bytes) -> None:
    with pytest.raises(hc.ArtifactError, match=r"forged\.hc"):
        hc.load(forged(small, graph=data))


def test_codes_beyond_the_table_cannot_be_written_down(small: Saved) -> None:
    """Every index that b bits can say is an entry of the table: there is nothing to check when a kernel runs."""
    for held in encoded_weights(hc.load(small.path).graph_module).values():
        assert held.codebook.shape[1] == 2**held.bits


SYMBOL = "Symbol('"


def test_a_graph_that_would_run_code(small: Saved, tmp_path: Path) -> None:
    """torch.export reads symbolic sizes with sympy, which evaluates them as Python."""
    marker = tmp_path / "ran"
    with zipfile.ZipFile(small.path) as archive:
        text = archive.read(GRAPH).decode()
    assert SYMBOL in text
    first = text.index(SYMBOL)
    symbol = text[first : text.index('"', first)]
    attack = json.dumps(f"exec(\"open({str(marker)!r}, 'w')\") or {symbol}")[1:-1]
    with contextlib.suppress(hc.ArtifactError):
        hc.load(forged(small, graph=text.replace(symbol, attack).encode()))
    assert not marker.exists(), "loading a file ran what the file said"


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.system",
        "torch.ops.load_library",
        "torch.load",
        "_operator.attrgetter",
        "_operator.methodcaller",
        "_operator.call",
        "math.factorial",
        "#torch.serialize",
        "",
    ],
)
def test_a_graph_calls_operators_only(target: str) -> None:
    with pytest.raises(hc.ArtifactError, match="is not an operator"):
        check_graph({"nodes": [{"target": target}]})


@pytest.mark.parametrize(
    "document",
    [
        {"guards_code": ["__import__('os')"]},
        {"anything": "else"},
        {"tensor_values": {"x'); import os": {}}},
        {"as_expr": {"expr_str": "__import__"}},
        [["loose"]],
        {"as_float": "__import__"},
        {"as_floats": [1.0, "__import__"]},
    ],
)
def test_a_graph_says_only_what_it_must(document: Any) -> None:
    with pytest.raises(hc.ArtifactError):
        check_graph(document)


def test_a_small_file_does_not_fill_the_memory(small: Saved, tmp_path: Path) -> None:
    """A member that unpacks to far more than the file holds is refused before it is unpacked."""
    path = tmp_path / "m.hc"
    with zipfile.ZipFile(small.path) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in (MANIFEST, GRAPH):
            target.writestr(name, source.read(name))
        target.writestr(TENSORS, bytes(1 << 26))
    read: list[str] = []
    real = zipfile.ZipFile.read

    def watch(self: zipfile.ZipFile, name: Any, pwd: Any = None) -> bytes:
        read.append(getattr(name, "filename", name))
        return real(self, name, pwd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "read", watch)
        with pytest.raises(hc.ArtifactError):
            hc.load(path)
    assert TENSORS not in read
