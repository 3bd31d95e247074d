"""all-MiniLM-L6-v2 at 4 bits, linears and embeddings: cosine to the fp32 embedding of unseen text."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from zoo import minilm, text

import hashcompile as hc
import hashcompile_runtime as hcrt
from hashcompile.core.console import progress, show

from .artifacts import export_fp32, forward, stock
from .claims import Claim, agreement, size
from .setting import Setting, memory, speed

NAME = "all-MiniLM-L6-v2, 4 bits"
SHAPES = ((1, 16), (1, 128), (8, 128))  # batch, tokens


def trial(setting: Setting) -> Iterator[Claim]:
    samples = text.corpus(calibration=256, unseen=setting.some(1_000))
    model, example = minilm.load(), minilm.tokens(2, 16)
    fp32 = export_fp32(model, example, minilm.DYNAMIC, setting.folder / "minilm_fp32.onnx")
    compiled = hc.compile(
        model,
        example,
        method=hc.Codebook(bits=4),
        calibration=list(minilm.batches(samples.calibration)),
        dynamic_shapes=minilm.DYNAMIC,
        compute="int8",
    )
    show(str(compiled.report()))
    ours = setting.folder / "minilm_4bit.onnx"
    for check in compiled.export_onnx(ours):
        yield agreement(NAME, check)

    fast, portable = (
        forward(session)
        for session in (hcrt.session(ours, threads=setting.threads), stock(ours, setting.threads))
    )
    cosines, unaided = [], []
    batches = list(minilm.batches(samples.unseen))
    with progress("embedding unseen text", len(batches)) as bar:
        for batch in batches:
            embedding = fast(**batch)
            with torch.inference_mode():
                cosines.append(torch.cosine_similarity(embedding, model(**batch)))
            unaided.append(torch.cosine_similarity(embedding, portable(**batch)))
            bar.advance()
    cosine, alike = torch.cat(cosines), float(torch.cat(unaided).min())
    show(f"{len(cosine)} texts from {samples.source}")

    mean, least = float(cosine.mean()), float(cosine.min())
    yield Claim(NAME, "cosine to fp32, mean", "", 1.0, mean, mean, "{:.4f}", at_least=0.98)
    yield Claim(NAME, "cosine to fp32, least", "", 1.0, least, least, "{:.4f}")
    yield Claim(NAME, "cosine with to without library, least", "", None, alike, alike, "{:.5f}")
    yield size(NAME, "file", fp32.stat().st_size, ours.stat().st_size, at_most=13e6)
    for batch, length in SHAPES:
        results = setting.race(fp32, ours, minilm.tokens(batch, length))
        yield speed(NAME, f"latency, {batch} x {length} tokens", results, at_least=2.0)
    yield memory(NAME, f"resident, {batch} x {length} tokens", results)
