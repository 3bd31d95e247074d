"""Entropy coding in the `.hc` file: equal models, smaller files, and claims that nobody believes."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import hashcompile as hc
from hashcompile import inspector
from hashcompile.core.encoded import encoded_weights
from hashcompile.core.entropy import encode
from hashcompile.passes.codebook.weight import CodebookWeight
from tests.container.saved import GRAPH, MANIFEST, TENSORS, Change, Saved, forged, same

METHODS: dict[str, Any] = {
    "codebook": hc.Codebook(4),
    "grouped": hc.Codebook(3, "per_group", 16),
    "int8": hc.Int8(),
    "sparse values": hc.Sparse(0.9),
    "sparse codes": hc.Sparse(0.95, bits=4),
    "sparse, half": hc.Sparse(0.5, bits=2),
    "hashed": hc.Hashed(1 / 8),
}


def network() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24 * 36, 64)).eval()
    model[3].weight.data = torch.randn(64, 24 * 36) ** 3  # trained weights have tails too
    return model, torch.randn(4, 3, 8, 8)


def compiled(method: Any) -> hc.CompiledModel:
    model, x = network()
    return hc.compile(model, (x,), method=method)


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    held = Saved.__new__(Saved)
    held.compiled, held.path = compiled(METHODS["sparse codes"]), tmp_path_factory.mktemp("hc") / "sparse.hc"
    held.compiled.save(held.path)
    return held


def manifest_of(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(MANIFEST))


@pytest.mark.parametrize("name", METHODS)
def test_coded_or_not_the_model_is_the_same(name: str, tmp_path: Path) -> None:
    model = compiled(METHODS[name])
    files = [tmp_path / "coded.hc", tmp_path / "plain.hc"]
    for file, entropy in zip(files, (True, False), strict=True):
        model.save(file, entropy=entropy)
        same(hc.load(file), model)
    assert files[0].stat().st_size < files[1].stat().st_size
    assert manifest_of(files[1])["coded"] == {}
    assert bool(manifest_of(files[0])["coded"]) == (name != "hashed")
    with zipfile.ZipFile(files[1]) as archive:
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())


@pytest.mark.parametrize("name", METHODS)
def test_both_sizes_are_told(name: str, tmp_path: Path) -> None:
    model = compiled(METHODS[name])
    model.save(tmp_path / "coded.hc")
    model.save(tmp_path / "plain.hc", entropy=False)
    report = model.report()
    now, before = (
        {layer.name: layer for layer in inspector.inspect(tmp_path / f"{file}.hc").layers}
        for file in ("coded", "plain")
    )
    for line in report:
        assert before[line.name].bytes == line.nbytes
        assert before[line.name].coder is None
        packed = now[line.name].packed_bytes
        assert packed in (None, line.nbytes)
        assert (
            (now[line.name].coder == "rANS") == (packed is not None) == (now[line.name].bytes < line.nbytes)
        )
        assert line.coded_nbytes == pytest.approx(now[line.name].bytes, rel=0.01, abs=8)
    assert ("entropy-coded" in str(report)) == (report.coded_nbytes < report.nbytes)
    assert report.as_dict()["coded_nbytes"] == report.coded_nbytes


def test_what_coding_does_not_make_smaller_stays_packed(tmp_path: Path) -> None:
    """Sixteen values, all equally likely: there is nothing to gain, and a table to lose."""
    model = compiled(METHODS["codebook"])
    codes = encoded_weights(model.graph_module)
    for code in codes.values():
        assert isinstance(code, CodebookWeight)
    flat = codes["3.weight"]
    flat.indices = (
        torch.arange(flat.indices.numel()).remainder(16).to(torch.uint8).reshape(flat.indices.shape)
    )
    model.save(tmp_path / "m.hc")
    assert "code.3.weight.codes" not in manifest_of(tmp_path / "m.hc")["coded"]
    same(hc.load(tmp_path / "m.hc"), model)


def test_a_weight_of_zeros(tmp_path: Path) -> None:
    model, x = network()
    model[3].weight.data.zero_()
    for method in (hc.Codebook(4), hc.Sparse(0, bits=4)):
        found = hc.compile(model, (x,), method=method)
        found.save(tmp_path / "m.hc")
        same(hc.load(tmp_path / "m.hc"), found)


def test_files_of_version_1_are_read(tmp_path: Path) -> None:
    """They are those of version 2 without coding, and their manifest does not know the word."""
    held = Saved.__new__(Saved)
    held.compiled, held.path = compiled(METHODS["sparse codes"]), tmp_path / "m.hc"
    held.compiled.save(held.path, entropy=False)

    def older(manifest: dict[str, Any]) -> None:
        assert manifest.pop("coded") == {}
        manifest["version"] = 1

    same(hc.load(forged(held, older)), held.compiled)


PLACES, CODES = "code.3.weight.places", "code.3.weight.codes"


def claim(name: str, **about: Any) -> Change:
    return lambda manifest: manifest["coded"][name].update(about)


@pytest.mark.parametrize(
    "change",
    [
        claim(CODES, count=1 << 40),
        claim(CODES, count=1),
        claim(CODES, count=-1),
        claim(CODES, count="7"),
        claim(CODES, count=True),
        claim(CODES, size=8),
        claim(CODES, size=0),
        claim(CODES, size=1 << 40),
        claim(CODES, size=None),
        claim(PLACES, count=1 << 40),
        claim(PLACES, count=3),
        claim(PLACES, size=2),
        claim(PLACES, size=3),
        claim(PLACES, size=512),
        lambda m: m["coded"].pop(CODES),
        lambda m: m["coded"].pop(PLACES),
        lambda m: m["coded"].update({CODES: None}),
        lambda m: m["coded"].update({CODES: {}}),
        lambda m: m["coded"].update({"code.3.weight.scale": {"count": 64, "size": 16}}),
        lambda m: m.update(coded=None),
        lambda m: m.update(coded=[]),
        lambda m: m.pop("coded"),
    ],
)
def test_forged_claims(coded: Saved, change: Change) -> None:
    with pytest.raises(hc.ArtifactError, match=r"forged\.hc"):
        hc.load(forged(coded, change))


@pytest.mark.parametrize("part", [PLACES, CODES])
@pytest.mark.parametrize(
    "damage",
    [
        lambda stream: stream[:-1],
        lambda stream: stream[:-2],
        lambda stream: stream[:3],
        lambda stream: stream[:0],
        lambda stream: torch.cat([stream, stream[:2]]),
        lambda stream: stream.flip(0),
        lambda stream: stream.float(),
        lambda stream: stream[None],
    ],
)
def test_forged_streams(coded: Saved, part: str, damage: Any) -> None:
    with zipfile.ZipFile(coded.path) as archive:
        tensors = safetensors.torch.load(archive.read(TENSORS))
    tensors[part] = damage(tensors[part]).contiguous()
    with pytest.raises(hc.ArtifactError, match=r"forged\.hc"):
        hc.load(forged(coded, tensors=safetensors.torch.save(tensors)))


def test_gaps_beyond_the_end(coded: Saved) -> None:
    """A stream that decodes, to places that are not there."""
    about = manifest_of(coded.path)["coded"][PLACES]
    with zipfile.ZipFile(coded.path) as archive:
        tensors = safetensors.torch.load(archive.read(TENSORS))
    far = torch.full((about["count"],), about["size"] - 2, dtype=torch.uint8)
    tensors[PLACES] = torch.frombuffer(bytearray(encode(far.numpy(), about["size"])), dtype=torch.uint8)
    with pytest.raises(hc.ArtifactError, match="gaps that reach"):
        hc.load(forged(coded, tensors=safetensors.torch.save(tensors)))


@pytest.mark.parametrize("how", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_members_compressed_otherwise(coded: Saved, how: int, tmp_path: Path) -> None:
    path = tmp_path / "m.hc"
    with zipfile.ZipFile(coded.path) as source, zipfile.ZipFile(path, "w", how) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(hc.ArtifactError, match="compressed otherwise"):
        hc.load(path)


def test_a_member_too_dense_to_be_believed_is_stored(tmp_path: Path) -> None:
    """What the reader would refuse is not written: samples and weights of zeros."""
    model = nn.Linear(20_000, 30).eval()
    model.weight.data.zero_()
    found = hc.compile(model, (torch.zeros(2, 20_000),), method=hc.Codebook(1))
    found.save(tmp_path / "m.hc")
    with zipfile.ZipFile(tmp_path / "m.hc") as archive:
        kinds = {info.filename: info.compress_type for info in archive.infolist()}
    assert kinds[GRAPH] == zipfile.ZIP_DEFLATED
    assert kinds[TENSORS] == zipfile.ZIP_STORED
    same(hc.load(tmp_path / "m.hc"), found)
