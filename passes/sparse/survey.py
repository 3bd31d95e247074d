"""Masks that only the whole model tells: global shares, and pruning before training.

- snip: |w dL/dw|, what the loss changes by, to first order (Lee, Ajanthan & Torr 2019, arXiv 1810.02340).
- grasp: w . (H g) with the gradient g and the Hessian H of the loss: what the norm of the gradient would lose without
  the weight (Wang, Zhang & Grosse 2020, arXiv 2002.07376).
- synflow: |w| dR/d|w| with R the sum of the outputs of the network of all magnitudes on inputs of ones, in `ROUNDS`
  rounds of which each prunes a little (Tanaka, Kunin, Yamins & Ganguli 2020, arXiv 2006.05467). No data.

Gradients are those of training mode, as in both papers: batch norms take the statistics of the batch, for the running
ones of an untrained model are 0 and 1, and say nothing. Dropout is off. SynFlow has no batch, and runs in evaluation
mode, as its authors run it; running means are 0 there, as they are in a model that is new.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from hashcompile.core.errors import ConfigError
from hashcompile.core.gradients import gradients_of
from hashcompile.core.graph import CompressedGraph, by_batch_statistics, flat_copy
from hashcompile.core.layers import Layer, arguments, attribute
from hashcompile.core.method import Survey
from hashcompile.core.signature import Batch
from hashcompile.passes.sparse.config import AT_START, Sparse
from hashcompile.passes.sparse.masks import of_all, of_pattern, of_share

ROUNDS = 100
BATCH_NORM = torch.ops.aten.batch_norm.default


def survey(
    config: Sparse, layers: Sequence[Layer], graph: CompressedGraph, example: Batch, batches: Sequence[Batch]
) -> Survey:
    """Raises ConfigError where a method needs calibration data and there is none."""
    if config.importance in ("wanda", "sparsegpt", "snip", "grasp") and not batches:
        raise ConfigError(f"{config} needs calibration data: give compile(..., calibration=...)")
    weights = {layer.parameter: attribute(graph, layer.parameter) for layer in layers}
    if config.importance in AT_START:
        if config.importance == "synflow":
            scores = flow(config, graph, example, list(weights))
        else:
            scores = by_gradients(config, graph, weights, batches)
        return Survey(chosen(config, in_rows(scores, layers)), untouched=True)
    if config.amount == 0:
        return Survey(in_rows({name: weight.detach() != 0 for name, weight in weights.items()}, layers))
    if config.scope == "global":
        return Survey(chosen(config, in_rows({n: w.detach().abs() for n, w in weights.items()}, layers)))
    return Survey()


def in_rows(values: dict[str, Tensor], layers: Sequence[Layer]) -> dict[str, Tensor]:
    return {layer.parameter: layer.view.rows(values[layer.parameter]) for layer in layers}


def chosen(config: Sparse, scores: dict[str, Tensor], amount: float | None = None) -> dict[str, Tensor]:
    """Masks of the shapes of the scores: of all layers together, or of each."""
    share = float(config.amount or 0) if amount is None else amount
    if config.pattern:
        return {name: of_pattern(each, *config.kept_of) for name, each in scores.items()}
    if config.scope == "layer":
        return {name: of_share(each, share) for name, each in scores.items()}
    return of_all(scores, share)


def by_gradients(
    config: Sparse, graph: CompressedGraph, weights: dict[str, Tensor], batches: Sequence[Batch]
) -> dict[str, Tensor]:
    grasp = config.importance == "grasp"
    training = by_batch_statistics(graph)
    total = [torch.zeros_like(weight, dtype=torch.float64) for weight in weights.values()]
    for number, batch in enumerate(batches):
        found = gradients_of(training, list(weights.values()), batch, number, config.loss, along=grasp)
        total = [a + b.double() for a, b in zip(total, found, strict=True)]
    pairs = zip(weights.items(), total, strict=True)
    scores = {name: w.detach() * g if grasp else (w.detach() * g).abs() for (name, w), g in pairs}
    check_scores(config, scores)
    return scores


def check_scores(config: Sparse, scores: dict[str, Tensor]) -> None:
    """Raises ConfigError for a layer of which scores tell no order."""
    for name, each in scores.items():
        if each.numel() and not bool(each.any()):
            raise ConfigError(
                f"{config}: all scores of {name} are 0: it is zero, or nothing that is looked at hangs on it; "
                "leave its layer out ({...: None}), or use another importance"
            )


def flow(config: Sparse, graph: CompressedGraph, example: Batch, names: Sequence[str]) -> dict[str, Tensor]:
    """Scores of the weights that are left after all rounds, 0 of the others."""
    flat = flat_copy(graph)
    means = [arguments(node)["running_mean"] for node in flat.graph.nodes if node.target is BATCH_NORM]
    state = {
        name: value.detach().double().abs() if value.is_floating_point() else value
        for name, value in [*flat.named_parameters(), *flat.named_buffers()]
    }
    state |= {
        str(node.target): torch.zeros_like(state[str(node.target)]) for node in means if node is not None
    }
    inputs = [x.new_ones(x.shape, dtype=torch.float64) if x.is_floating_point() else x for x in example]
    masks = {name: torch.ones(state[name].shape, dtype=torch.bool) for name in names}
    scores: dict[str, Tensor] = {}
    for number in range(1, ROUNDS + 1):
        leaves = {name: (state[name] * masks[name]).requires_grad_() for name in names}
        with torch.enable_grad():
            outputs = torch.func.functional_call(flat, state | leaves, tuple(inputs))
            floats = [
                x for x in pytree.tree_leaves(outputs) if isinstance(x, Tensor) and x.is_floating_point()
            ]
            total = torch.stack([x.sum() for x in floats]).sum()
            gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        scores = {
            name: torch.zeros_like(leaf) if g is None else (leaf * g).detach().abs()
            for (name, leaf), g in zip(leaves.items(), gradients, strict=True)
        }
        if not all(bool(torch.isfinite(each).all()) for each in scores.values()) or not any(
            bool(each.any()) for each in scores.values()
        ):
            raise ConfigError(
                f"{config}: nothing flows through this model (round {number}); use another importance"
            )
        if number == 1:
            check_scores(config, scores)
        if config.pattern is None:
            share = 1 - (1 - float(config.amount or 0)) ** (number / ROUNDS)
            masks = chosen(config, scores, share)
    return scores
