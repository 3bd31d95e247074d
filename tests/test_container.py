"""The `.hc` file: what comes back is what was saved, and a damaged or hostile file is refused, one way only."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import hashcompile as hc
from hashcompile.core.encoded import encoded_weights
from hashcompile.core.untrusted import check_graph
from tests.models import build

MANIFEST, GRAPH, TENSORS = "manifest.json", "graph.json", "tensors.safetensors"
NAMES = ["cnn", "tied", "transposed", "attention"]


class Saved:
    def __init__(self, name: str, folder: Path, **arguments: Any) -> None:
        self.model, self.inputs = build(name)
        self.compiled = hc.compile(self.model, self.inputs(3), calibration=[self.inputs(8)], **arguments)
        self.path = folder / f"{name}.hc"
        self.compiled.save(self.path)
        self.data = self.path.read_bytes()


@pytest.fixture(scope="module", params=NAMES)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return Saved(request.param, tmp_path_factory.mktemp("hc"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return Saved(
        "mixed", tmp_path_factory.mktemp("hc"), method={"*": hc.Codebook(3, "per_group", 16), "fc": None}
    )


def same(got: hc.CompiledModel, wanted: hc.CompiledModel) -> None:
    assert got.plan == wanted.plan
    assert got.compute == wanted.compute
    assert got.errors == wanted.errors
    assert got.quality == wanted.quality
    assert got.verify == wanted.verify
    assert got.signature == wanted.signature
    assert str(got.report()) == str(wanted.report())
    ours, theirs = (dict(compiled.graph_module.state_dict().items()) for compiled in (got, wanted))
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


def test_what_is_loaded_is_what_was_saved(saved: Saved, tmp_path: Path) -> None:
    loaded = hc.load(str(saved.path))
    same(loaded, saved.compiled)
    for batch in (1, 5):
        x = saved.inputs(batch)
        assert torch.equal(loaded(*x), saved.compiled(*x))
    with pytest.raises(hc.InputError):
        loaded(saved.inputs(2)[0].double())
    for compiled, name in ((saved.compiled, "a.onnx"), (loaded, "b.onnx")):
        dataclasses.replace(compiled, verify=False).export_onnx(tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    loaded.save(tmp_path / "again.hc")
    same(hc.load(tmp_path / "again.hc"), saved.compiled)


def test_groups_and_refusals_come_back(small: Saved) -> None:
    loaded = hc.load(small.path)
    same(loaded, small.compiled)
    assert loaded.plan["fc"].reason == "excluded by 'fc'"
    x = small.inputs(4)
    assert torch.equal(loaded(*x), small.compiled(*x))


def test_what_is_loaded_can_be_verified(small: Saved, tmp_path: Path) -> None:
    """With the inputs that the file keeps."""
    checks = hc.load(small.path).export_onnx(tmp_path / "m.onnx")
    assert [check.runtime for check in checks] == ["stock", "hashcompile"]
    assert all(check.runs >= 3 and check.error <= check.tolerance for check in checks)


def test_what_is_loaded_trains(saved: Saved) -> None:
    loaded = hc.load(saved.path)
    graph = loaded.graph_module
    assert not graph.training
    wanted = {n: p.requires_grad for n, p in saved.compiled.graph_module.named_parameters()}
    assert {n: p.requires_grad for n, p in graph.named_parameters()} == wanted
    graph.train()(*saved.inputs(4)).square().sum().backward()
    for code in encoded_weights(graph).values():
        assert code.codebook.grad is not None and bool(code.codebook.grad.abs().sum() > 0)


def test_what_was_frozen_stays_frozen(tmp_path: Path) -> None:
    model, inputs = build("mixed")
    model.fc.bias.requires_grad_(False)
    compiled = hc.compile(model, inputs(2))
    compiled.graph_module.get_parameter("conv.weight.codebook").requires_grad_(False)
    compiled.save(tmp_path / "m.hc")
    wanted = {n: p.requires_grad for n, p in compiled.graph_module.named_parameters()}
    assert [n for n, trains in wanted.items() if not trains] == ["fc.bias", "conv.weight.codebook"]
    loaded = hc.load(tmp_path / "m.hc").graph_module
    assert {n: p.requires_grad for n, p in loaded.named_parameters()} == wanted


def test_a_tied_weight_stays_tied_and_is_stored_once(tmp_path: Path) -> None:
    model, inputs = build("tied")
    compiled = hc.compile(model, inputs(2), {"fc": hc.Codebook()})
    compiled.save(tmp_path / "m.hc")
    with zipfile.ZipFile(tmp_path / "m.hc") as archive:
        assert archive.getinfo(TENSORS).file_size < 2 * 80 * 32 * 4, "the table is 10 kB, and there once"
    loaded = hc.load(tmp_path / "m.hc")
    x = inputs(3)
    assert torch.equal(loaded(*x), compiled(*x))
    assert len({p.data_ptr() for p in loaded.graph_module.parameters()}) == len(
        {p.data_ptr() for p in compiled.graph_module.parameters()}
    )


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(32, 32)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        return {"b": self.fc(x) - y, "a": [x, (y,)]}


@pytest.mark.parametrize("by_name", [False, True])
def test_structured_inputs_and_outputs_come_back(by_name: bool, tmp_path: Path) -> None:
    x, y = torch.randn(3, 32), torch.randn(3, 32)
    compiled = hc.compile(Named(), {"x": x, "y": y} if by_name else (x, y))
    compiled.save(tmp_path / "m.hc")
    loaded = hc.load(tmp_path / "m.hc")
    got, wanted = (m(x=x, y=y) if by_name else m(x, y) for m in (loaded, compiled))
    assert list(got) == list(wanted) == ["b", "a"]
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)


def test_one_tensor_given_twice(tmp_path: Path) -> None:
    x = torch.randn(3, 32)
    hc.compile(Named(), (x, x)).save(tmp_path / "m.hc")
    hc.load(tmp_path / "m.hc")


def test_no_pickle(saved: Saved) -> None:
    with zipfile.ZipFile(saved.path) as archive:
        assert sorted(archive.namelist()) == sorted([MANIFEST, GRAPH, TENSORS])
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
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


def test_two_saves_are_equal(saved: Saved, tmp_path: Path) -> None:
    for name in ("1.hc", "2.hc"):
        saved.compiled.save(tmp_path / name)
    assert (tmp_path / "1.hc").read_bytes() == (tmp_path / "2.hc").read_bytes()


def test_the_file_holds_no_path_of_the_users(small: Saved) -> None:
    assert str(Path(__file__).parent).encode() not in small.data


def test_a_failure_keeps_the_old_file(saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.hc"
    path.write_bytes(b"old")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
    with pytest.raises(hc.ArtifactError, match="No space left"):
        saved.compiled.save(path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["m.hc"]


def test_places_that_cannot_be_written(saved: Saved, tmp_path: Path) -> None:
    with pytest.raises(hc.ArtifactError, match="there is no directory"):
        saved.compiled.save(tmp_path / "nowhere" / "m.hc")
    with pytest.raises(hc.ArtifactError, match="is a directory"):
        saved.compiled.save(tmp_path)
    assert os.listdir(tmp_path) == []


def test_what_is_no_file_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "m.hc"
    with pytest.raises(hc.ArtifactError, match="there is no file"):
        hc.load(path)
    with pytest.raises(hc.ArtifactError, match="cannot read"):
        hc.load(tmp_path)
    for data in (
        b"",
        b"PK",
        b"not a zip" * 50,
        b"PK\x03\x04" + bytes(100),
        bytes(1000),
        b"PK\x05\x06" + bytes(18),
    ):
        path.write_bytes(data)
        with pytest.raises(hc.ArtifactError, match=r"m\.hc"):
            hc.load(path)
    torch.save({"a": torch.ones(3)}, path)
    with pytest.raises(hc.ArtifactError, match="not a hashcompile file"):
        hc.load(path)


def test_truncated(small: Saved, tmp_path: Path) -> None:
    path = tmp_path / "m.hc"
    size = len(small.data)
    for length in (
        0,
        1,
        3,
        4,
        29,
        30,
        31,
        100,
        *range(0, size, size // 25),
        size - 100,
        size - 22,
        size - 2,
        size - 1,
    ):
        path.write_bytes(small.data[:length])
        with pytest.raises(hc.ArtifactError, match=r"m\.hc"):
            hc.load(path)


def attempt(path: Path, small: Saved) -> None:
    """A damaged file is refused, or gives exactly what was saved (where nothing reads the damaged place)."""
    try:
        loaded = hc.load(path)
    except hc.ArtifactError:
        return
    same(loaded, small.compiled)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_flipped_byte(small: Saved, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(small.data) - 1))
    flip = data.draw(st.integers(1, 255))
    damaged = bytearray(small.data)
    damaged[position] ^= flip
    path = small.path.with_name("flipped.hc")
    path.write_bytes(damaged)
    attempt(path, small)


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_of_the_directory(small: Saved, bit: int) -> None:
    """Every byte of the zip's own records: no checksum covers them."""
    first = small.data.index(b"PK\x01\x02")
    path = small.path.with_name("flipped.hc")
    for position in range(first, len(small.data)):
        damaged = bytearray(small.data)
        damaged[position] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            hc.container.read_manifest(path)
        except hc.ArtifactError:
            continue


Change = Callable[[dict[str, Any]], None]


def forged(saved: Saved, change: Change | None = None, **members: bytes) -> Path:
    """The file of someone who knows how: every checksum fits what was changed."""
    with zipfile.ZipFile(saved.path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(held.pop(MANIFEST))
    held |= {{"graph": GRAPH, "tensors": TENSORS}[key]: data for key, data in members.items()}
    manifest["sha256"] = {name: hashlib.sha256(data).hexdigest() for name, data in held.items()}
    if change:
        change(manifest)
    path = saved.path.with_name("forged.hc")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {MANIFEST: json.dumps(manifest).encode(), **held}.items():
            archive.writestr(name, data)
    return path


def test_the_forger_can_forge(small: Saved) -> None:
    same(hc.load(forged(small)), small.compiled)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", "onnx", "not a hashcompile file"),
        ("format", None, "not a hashcompile file"),
        ("version", 2, "is of version 2; this hashcompile reads 1"),
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


@pytest.mark.parametrize("missing", [MANIFEST, GRAPH, TENSORS])
def test_a_missing_member(small: Saved, missing: str, tmp_path: Path) -> None:
    path = tmp_path / "m.hc"
    with zipfile.ZipFile(small.path) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            if name != missing:
                target.writestr(name, source.read(name))
    with pytest.raises(hc.ArtifactError, match=missing):
        hc.load(path)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"7", b"\xff\xfe", b"[" * 100_000])
def test_a_manifest_that_is_no_object(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.hc"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MANIFEST, text)
    with pytest.raises(hc.ArtifactError, match="not a hashcompile file"):
        hc.load(path)


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
