"""Recipes: what a paper does in several steps, as one call over the methods of this house."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from hashcompile.artifact import CompiledModel
from hashcompile.calibrate import listed, read_batches
from hashcompile.capture import capture
from hashcompile.compiler import compile
from hashcompile.core.errors import ConfigError
from hashcompile.core.graph import CompressedGraph
from hashcompile.core.layers import Kind, layers, unfit
from hashcompile.core.method import Compute, check_compute
from hashcompile.core.signature import Inputs
from hashcompile.passes.sparse import PruningSchedule, Sparse
from hashcompile.plan import check_globs, choose

Step = Callable[[], None]
Train = Callable[[nn.Module, Step], None]

PAPER_BITS = {True: 8, False: 5}  # is it a convolution?
CONVOLUTIONS = (Kind.CONV, Kind.CONV_TRANSPOSE)


def deep_compression(
    model: nn.Module,
    example_inputs: Inputs,
    train: Train,
    *,
    steps: int,
    amount: float | Mapping[str, float | None] = 0.9,
    bits: int | Mapping[str, int] | None = None,
    every: int = 100,
    fine_tune: Train | None = None,
    calibration: Iterable[Inputs] | None = None,
    dynamic_batch: bool = True,
    dynamic_shapes: Any = None,
    compute: Compute = "float",
    progress: bool = True,
    verify: bool = True,
) -> CompiledModel:
    """Deep Compression (Han, Mao & Dally 2016, arXiv 1510.00149): prune, share weights, and code them by their entropy.

    1. A copy of `model` is pruned while `train` trains it: the smallest weights of each layer go, in a share that rises
       over `steps` steps of the optimizer to `amount`.
    2. What is left of each layer becomes 2**bits shared values, times a scale for each output: an index a weight.
    3. The shared values and scales are trained; what is zero stays zero, and indices stay.
    4. `save` on what is returned stores indices, and the gaps between them, with as many bits as their entropy takes.

    The paper counts, for n weights of 32 bits that share k values, a ratio of r = 32 n / (n log2 k + 32 k). With a
    share s of n weights left in N rows, and H bits of entropy for an index and for a gap, all steps together come to

        r = 32 n / (s n (H_index + H_gap) + 32 (k + N))

    which `report().dense_nbytes / report().coded_nbytes` tells of the tensors, and the size of the file of everything.

    Args:
        model: a trained float32 module on the CPU; it is not changed.
        example_inputs, calibration, dynamic_batch, dynamic_shapes, compute, progress, verify: as for `compile`. With
            calibration data the shared values are chosen for what the layers compute, not for the weights.
        train: `train(module, step)` trains `module` in whatever way suits, and calls `step()` behind every
            `optimizer.step()`, before gradients are zeroed. Train on well past `steps`.
        steps: calls of `step` over which the share rises; `every`: of them, from one choice of weights to the next.
        amount: the share of weights that go: of every layer, or {glob over layer names: share}, later entries win. A
            layer of None, or that no glob names, is left as it is.
        bits: of an index: of every layer, or {glob: bits}. None, or a layer that no glob names: 8 for convolutions and
            5 for others, as in the paper.
        fine_tune: like `train`, for the third step; None trains by `train` once more. Its `step` does nothing.

    Raises ConfigError, and all that `compile` raises.
    """
    check_compute(compute)
    fine_tune = train if fine_tune is None else fine_tune
    for name, function in (("train", train), ("fine_tune", fine_tune)):
        if not callable(function):
            raise ConfigError(
                f"deep_compression({name}={function!r}): wanted a function of the module and `step`"
            )
    for name, count in (("steps", steps), ("every", every)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ConfigError(f"deep_compression({name}={count!r}): wanted a whole number from 1 on")
    shapes: dict[str, Any] = {"dynamic_batch": dynamic_batch, "dynamic_shapes": dynamic_shapes}
    captured = capture(model, example_inputs, **shapes)
    graph = captured.graph
    data = None if calibration is None else listed(calibration)
    if data is not None:
        read_batches(data, captured.signature)
    shares = by_layer(graph, amount)
    widths = by_layer(graph, {} if bits is None else bits)
    chosen = [each for each in layers(graph) if unfit(each) is None and shares.get(each.name) is not None]
    if not chosen:
        raise ConfigError(f"deep_compression(amount={amount!r}): no layer is to be pruned")
    method = {
        each.name: Sparse(amount=0, bits=widths.get(each.name, PAPER_BITS[each.kind in CONVOLUTIONS]))
        for each in chosen
    }

    pruned = copy.deepcopy(model)
    held = dict(pruned.named_parameters())  # a tied parameter by one of its names, not always the graph's
    schedules = [
        PruningSchedule(
            pruned,
            shares[each.name],
            end=steps,
            every=every,
            names=[name for name in (each.parameter, *each.tied) if name in held],
        )
        for each in chosen
    ]

    def hold() -> None:
        for schedule in schedules:
            schedule.step()

    train(pruned.train(), hold)
    if (done := schedules[0].steps) < steps:
        raise ConfigError(
            f"deep_compression(steps={steps}): train called step() {done} times, and pruning did not end"
        )

    compiled = compile(
        pruned.eval(),
        example_inputs,
        method,
        data,
        compute=compute,
        progress=progress,
        verify=verify,
        **shapes,
    )
    fine_tune(compiled.graph_module.train(), lambda: None)
    compiled.graph_module.eval()
    compiled.check_finite()
    return compiled.calibrate(data) if data else compiled


def by_layer(graph: CompressedGraph, given: Any) -> dict[str, Any]:
    """By the names of layers, of those that a glob names. Raises ConfigError for a glob that matches nothing."""
    rules = tuple(given.items()) if isinstance(given, Mapping) else (("*", given),)
    check_globs(graph, rules)
    found = {each.name: choose(each, rules) for each in layers(graph)}
    return {name: value for name, (value, glob) in found.items() if glob is not None}
