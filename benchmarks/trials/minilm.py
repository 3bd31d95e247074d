"""all-MiniLM-L6-v2 at 4 bits, linears and embeddings: cosine to the fp32 embedding of unseen text, and every peer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from contest.prepared import prepared
from contest.subject import Recipe, Subject
from peers import ours
from peers.onnxruntime_fp32 import fp32_file
from zoo import minilm, text
from zoo.artifacts import forward, stock

import hashcompile_runtime as hcrt
from hashcompile.core.console import progress, show

from .claims import Claim, agreement, size
from .setting import Setting

NAME = "all-MiniLM-L6-v2"
SHAPES = ((1, 16), (1, 128), (8, 128))  # batch, tokens
TARGET = 1.0  # times as fast as the fastest peer


def subject(calibration: list[str]) -> Subject:
    return Subject(
        NAME,
        Recipe("zoo.minilm", "load"),
        {f"{batch} x {length}": minilm.tokens(batch, length) for batch, length in SHAPES},
        minilm.DYNAMIC,
        lambda: list(minilm.batches(calibration)),
    )


def trial(setting: Setting) -> Iterator[Claim]:
    samples = text.corpus(calibration=256, unseen=setting.some(1_000))
    encoder = subject(samples.calibration)
    build = setting.run.settings.build
    ready, fp32 = prepared(ours.PEER, encoder, build), fp32_file(encoder, build)
    show(ours.report(ready))
    for check in ours.checks(ready):
        yield agreement(NAME, check)

    file = ready.files[0]
    fast, portable = (
        forward(session)
        for session in (hcrt.session(file, threads=setting.threads), stock(file, setting.threads))
    )
    cosines, unaided = [], []
    batches = list(minilm.batches(samples.unseen))
    with progress("embedding unseen text", len(batches)) as bar:
        for batch in batches:
            embedding = fast(**batch)
            with torch.inference_mode():
                cosines.append(torch.cosine_similarity(embedding, encoder.model(**batch)))
            unaided.append(torch.cosine_similarity(embedding, portable(**batch)))
            bar.advance()
    cosine, alike = torch.cat(cosines), float(torch.cat(unaided).min())
    show(f"{len(cosine)} texts from {samples.source}")

    mean, least = float(cosine.mean()), float(cosine.min())
    yield Claim(NAME, "cosine to fp32, mean", "", 1.0, mean, mean, "{:.4f}", at_least=0.98)
    yield Claim(NAME, "cosine to fp32, least", "", 1.0, least, least, "{:.4f}")
    yield Claim(NAME, "cosine with to without library, least", "", None, alike, alike, "{:.5f}")
    yield size(NAME, "file", fp32.stat().st_size, ready.file_bytes, at_most=13e6)
    setting.run.measure(encoder, ready.file_bytes, dict.fromkeys(encoder.cases, TARGET))
