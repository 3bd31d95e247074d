"""What peers prepared, kept under build/: preparing takes minutes, and measuring is done again and again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from hashcompile.core.console import quiet

from .peer import Peer
from .subject import Subject

BENCHMARKS = Path(__file__).parents[1]
BUILD = BENCHMARKS.parent / "build" / "benchmarks"
_STAMP = "files.json"


@dataclass(frozen=True)
class Prepared:
    files: list[Path]  # the model's first; none where the worker makes the model itself
    file_bytes: int  # of all of them, else of the dense weights


def prepared(peer: Peer, subject: Subject, build: Path = BUILD) -> Prepared:
    """From the cache, or made now. Raises whatever the peer raises."""
    folder = build / "prepared" / subject.name / f"{peer.name.replace(' ', '-')}-{key(peer, subject)}"
    if not (folder / _STAMP).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".staged-"))
        try:
            with quiet():
                names = peer.prepare(subject, stage)
            (stage / _STAMP).write_text(json.dumps(names))
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(stage, folder)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    files = [folder / name for name in json.loads((folder / _STAMP).read_text())]
    return Prepared(files, sum(file.stat().st_size for file in files) or subject.dense_bytes())


def key(peer: Peer, subject: Subject) -> str:
    """Of everything that decides what is prepared: the recipe, the data, the versions of the tools, our own sources."""
    digest = hashlib.sha256()
    tools = {name: version(name) for name in sorted({*peer.needs, "torch"})}
    shapes = {
        case: {name: tuple(value.shape) for name, value in inputs.items()}
        for case, inputs in subject.cases.items()
    }
    made_of = [subject.kind, subject.fitted, shapes, subject.samples_digest, tools]
    digest.update(json.dumps([peer.name, asdict(subject.recipe), *made_of]).encode())
    for path in sorted(_sources(peer)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _sources(peer: Peer) -> Iterator[Path]:
    for folder in (BENCHMARKS / "peers", BENCHMARKS / "zoo", *peer.sources):
        yield from folder.rglob("*.py")
