"""compile(): the whole story."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from hashcompile import pipeline
from hashcompile.artifact import CompiledModel, quality_of, rounding_error
from hashcompile.calibrate import read_batches
from hashcompile.capture import capture
from hashcompile.check_tvm import check_captured
from hashcompile.core.console import progress as stage
from hashcompile.core.method import Compute, check_compute
from hashcompile.core.parallel import one_thread
from hashcompile.core.signature import Inputs
from hashcompile.core.sweep import sweep
from hashcompile.passes.codebook import Codebook
from hashcompile.plan import stages
from hashcompile.ranges import measure

CHECKED = 8  # samples of each of the first `CHECKED_BATCHES` inputs on which quality is measured and exports verified
CHECKED_BATCHES = 4


def compile(
    model: nn.Module,
    example_inputs: Inputs,
    method: Any = Codebook(bits=4),  # noqa: B008 - a frozen config
    calibration: Iterable[Inputs] | None = None,
    dynamic_batch: bool = True,
    dynamic_shapes: Any = None,
    compute: Compute = "int8",
    seed: int = 0,
    progress: bool = True,
    verify: bool = True,
    tvm: bool | str = False,
) -> CompiledModel:
    """Compress a trained model and get it ready for export. The model itself is not changed.

    Args:
        model: a float32 module on the CPU.
        example_inputs: a tuple of tensors, or a dict of keyword tensors.
        method: one config, such as `Codebook(bits=4)`; or `{glob over layer names: config or None}`, later entries win;
            or a list of these, applied in order: `[PruneChannels(amount=0.3), Codebook(bits=4)]`.
        calibration: inputs like `example_inputs`, which make codes fit what the layers compute; None is data-free.
        dynamic_batch: dim 0 of every input becomes symbolic.
        dynamic_shapes: torch.export's own form, instead of `dynamic_batch`.
        compute: arithmetic of the fast kernels: "int8" rounds activations to int8, with one scale a token
            (an image, in front of a convolution); "bf16" rounds activations and tables to 8 significant bits where
            the CPU multiplies such numbers, and is exact elsewhere; "float" is exact.
        seed: of every random choice a method makes.
        progress: show what is being done, with an ETA where it can be known, at a terminal.
        verify: run every export against the compressed graph before it is written.
        tvm: it shall become a TVM library, too, for this target of `export_tvm` (True: "cpu"); what TVM cannot import
            is told before anything is compressed.

    Raises:
        ConfigError, WeightError, CaptureError, CalibrationError, ExportError: all of them HashcompileError.
    """
    check_compute(compute)
    rules = stages(method)
    # what torch splits over threads, it rounds by their number
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with stage("capturing", None, progress):
            captured = capture(
                model, example_inputs, dynamic_batch=dynamic_batch, dynamic_shapes=dynamic_shapes
            )
        if tvm:
            with stage("checking for TVM", None, progress):
                check_captured(captured, compute, "cpu" if tvm is True else tvm)
        graph, signature = captured.graph, captured.signature
        batches = read_batches(calibration, signature) if calibration is not None else []
        samples = [
            signature.first(batch, CHECKED) for batch in (captured.example, *batches[: CHECKED_BATCHES - 1])
        ]
        original = sweep(graph, samples)
        plan, errors = pipeline.run(graph, rules, signature, captured.example, batches, compute, progress)
        with stage("measuring", None, progress):
            quality = quality_of(sweep(graph, samples), original)
            ranges = measure(graph, compute, batches)
            lost = rounding_error(graph, compute, ranges.of, samples)
    return CompiledModel(
        graph_module=graph,
        plan=plan,
        compute=compute,
        signature=signature,
        samples=samples,
        errors=errors,
        quality=quality,
        verify=verify,
        ranges=ranges,
        rounding_error=lost,
    )
