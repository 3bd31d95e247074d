"""stories260K at 4 bits: perplexity, and what it tells."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from zoo import stories, text
from zoo.artifacts import export_fp32, forward, stock

import hashcompile as hc
import hashcompile_runtime as hcrt
from hashcompile.core.console import show

from .claims import Claim, agreement, size
from .setting import Setting, speed

NAME = "stories260K, 4 bits"
PROMPT = "Once upon a time"


def trial(setting: Setting) -> Iterator[Claim]:
    tokenizer, model = stories.Tokenizer(), stories.load()
    told = [tokenizer.encode(story) for story in text.stories()[:428]]
    unseen, seen = told[: setting.some(300)], told[300:]
    calibration = [(inputs,) for inputs, _ in stories.batches(seen)]
    example = (torch.ones(2, 16, dtype=torch.int64),)
    fp32 = export_fp32(model, example, stories.DYNAMIC, setting.folder / "stories_fp32.onnx")
    compiled = hc.compile(
        model,
        example,
        method=hc.Codebook(bits=4),
        calibration=calibration,
        dynamic_shapes=stories.DYNAMIC,
        compute="int8",
    )
    ours = setting.folder / "stories_4bit.onnx"
    for check in compiled.export_onnx(ours):
        yield agreement(NAME, check)

    before, after = (
        forward(session)
        for session in (stock(fp32, setting.threads), hcrt.session(ours, threads=setting.threads))
    )
    for who, run in (("fp32", before), ("4 bits", after)):
        tokens = stories.continuation(run, tokenizer.encode(PROMPT), 100)
        show(f"{who}: {tokenizer.decode(tokens)}\n")
    was, now = (math.exp(stories.nats(run, unseen)) for run in (before, after))
    rise = 100 * (now / was - 1)
    yield Claim(NAME, f"perplexity of {len(unseen)} unseen stories", "", was, now, rise, "{:+.1f} %")
    yield size(NAME, "file", fp32.stat().st_size, ours.stat().st_size)
    for length in (1, 128):
        race = setting.race(fp32, ours, (calibration[-1][0][:1, :length],))
        yield speed(NAME, f"latency, 1 x {length} tokens", race)
