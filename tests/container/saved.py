"""A compressed model and its file; another file of someone who knows how to forge one."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import hashcompile as hc
from tests.models import build

MANIFEST, GRAPH, TENSORS = "manifest.json", "graph.json", "tensors.safetensors"
NAMES = ["cnn", "tied", "transposed", "attention"]
Change = Callable[[dict[str, Any]], None]


class Saved:
    def __init__(self, name: str, folder: Path, **arguments: Any) -> None:
        self.model, self.inputs = build(name)
        self.compiled = hc.compile(self.model, self.inputs(3), calibration=[self.inputs(8)], **arguments)
        self.path = folder / f"{name}.hc"
        self.compiled.save(self.path)
        self.data = self.path.read_bytes()


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
