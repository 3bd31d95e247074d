"""Gradients of the weights of a captured graph, for a loss of the user's or for its outputs themselves.

Without a `loss` of the user's it is the model's own outputs y that are looked at, in a random direction s of +1 and -1
for each sample: the loss is s . y. The expected square of its change is the squared first-order change of all outputs,
E (s . J w)^2 = |J w|^2, so no labels are needed (the estimator of Hutchinson 1989).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from hashcompile.core.errors import CalibrationError
from hashcompile.core.signature import Batch

Loss = Callable[[Any, int], Tensor]  # (outputs, number of the calibration batch) -> a scalar


def gradients_of(
    graph: fx.GraphModule,
    weights: Sequence[Tensor],
    batch: Batch,
    number: int,
    loss: Loss | None,
    along: bool = False,
) -> Sequence[Tensor]:
    """Of each of `weights`, of the loss of one batch; with `along`, the Hessian's product with them instead. Raises
    CalibrationError for a loss that is no finite scalar, or whose gradient is not finite."""
    before = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            outputs = graph(*(value.clone() for value in batch))
            value = loss(outputs, number) if loss else in_a_random_direction(outputs, number)
            if not isinstance(value, Tensor) or value.numel() != 1 or not bool(torch.isfinite(value)):
                raise CalibrationError(
                    f"calibration batch {number}: the loss is {told(value)}, wanted a finite tensor of one element"
                )
            if not value.requires_grad:
                raise CalibrationError(
                    f"calibration batch {number}: the loss does not hang on any weight; compute it from the outputs, "
                    "without detach() or no_grad()"
                )
            found: Sequence[Tensor | None] = torch.autograd.grad(
                value.reshape(()), weights, allow_unused=True, create_graph=along
            )
            if along:
                squares = [(g * g.detach()).sum() for g in found if g is not None and g.requires_grad]
                found = (
                    torch.autograd.grad(torch.stack(squares).sum(), weights, allow_unused=True)
                    if squares
                    else [None] * len(weights)
                )
    finally:
        for weight, kept in zip(weights, before, strict=True):
            weight.requires_grad_(kept)
    if not all(bool(torch.isfinite(g).all()) for g in found if g is not None):
        raise CalibrationError(
            f"calibration batch {number}: the loss is finite, and its gradient is NaN or infinite; "
            "check it where it is steep, such as at a root or a logarithm of 0"
        )
    return [torch.zeros_like(w) if g is None else g.detach() for w, g in zip(weights, found, strict=True)]


def told(value: Any) -> str:
    """A loss in a message: tensors of many elements by their shape."""
    if not isinstance(value, Tensor):
        return f"of the type {type(value).__name__}"
    return f"{value.item()}" if value.numel() == 1 else f"a tensor of the shape {tuple(value.shape)}"


def in_a_random_direction(outputs: Any, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    total = torch.zeros(())
    for leaf in pytree.tree_leaves(outputs):
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            signs = torch.randint(0, 2, leaf.shape, generator=draw) * 2 - 1
            total = total + (leaf * signs).sum()
    return total
