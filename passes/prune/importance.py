"""What a unit is worth: functions from what is known of a group's units to a score for each, (U,) float64.

A unit is what stands or falls together: one slice of every weight that produces it, one of every weight that reads it.
Scores compare units of one group; for a comparison across groups (`scope="global"`) they are divided by the group's
mean (`relative`). Units without any worth score 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Units:
    """What is known of the U units of one group, one row a unit. Rows of NaN are units that a layer does not have: a
    stream may be wider behind some layers than behind others.
    """

    produced: tuple[
        Tensor, ...
    ]  # (U, K_i): slices of the weights, one tensor a layer, that compute the units
    scales: tuple[Tensor, ...] = ()  # (U,): of the batch norms they go through
    energies: tuple[
        Tensor, ...
    ] = ()  # (U,): mean square of a unit, where each of the layers that read it does
    changes: Tensor | None = (
        None  # (B, U): first-order change of the loss of each batch without a unit's weights
    )


@dataclass(frozen=True)
class Importance:
    """A row of the table."""

    score: Callable[[Units], Tensor]
    needs: Literal["weights", "scales", "energies", "changes"]  # the last two come from calibration data


def l1(units: Units) -> Tensor:
    """Sum of absolute weights over all layers that produce the unit (Li et al. 2017, arXiv 1608.08710)."""
    return _sum([slices.double().abs().sum(1) for slices in units.produced])


def l2(units: Units) -> Tensor:
    """Euclidean norm of the weights over all layers that produce the unit."""
    return _sum([slices.double().square().sum(1) for slices in units.produced]).sqrt()


def column_norm(units: Units) -> Tensor:
    """Norm of the unit's column over the mean column norm of its layer, averaged over the layers that produce it.

    So each layer has one vote, whatever the size of its weights: in a residual group, `l2` lets one layer decide.
    """
    return _mean([relative(slices.double().norm(dim=1)) for slices in units.produced])


def batch_norm_scale(units: Units) -> Tensor:
    """Absolute scale of the batch norms behind the unit, each over its mean (network slimming: Liu et al. 2017, arXiv
    1708.06519)."""
    return _mean([relative(scale.double().abs()) for scale in units.scales])


def activation(units: Units) -> Tensor:
    """Root mean square of the unit where it is read, each over its mean: what a layer never sees it will not miss."""
    return _mean([relative(energy.double().clamp_min(0).sqrt()) for energy in units.energies])


def taylor(units: Units) -> Tensor:
    """Squared first-order change of the loss without the unit, (sum g w)^2 over its weights w with gradients g; the
    mean over batches (Molchanov et al. 2019, arXiv 1906.10771)."""
    assert units.changes is not None
    return units.changes.double().square().mean(0)


def geometric_median(units: Units) -> Tensor:
    """Sum of distances to all other units: what lies amid the others can be made of them (He et al. 2019, arXiv
    1811.00250). Slices of each layer are divided by their root mean square, so that layers weigh alike.
    """
    rows = torch.cat([_unit_scale(slices.double()) for slices in units.produced], 1)
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").sum(1)


IMPORTANCES: Mapping[str, Importance] = MappingProxyType(
    {
        "l1": Importance(l1, "weights"),
        "l2": Importance(l2, "weights"),
        "column_norm": Importance(column_norm, "weights"),
        "batch_norm": Importance(batch_norm_scale, "scales"),
        "activation": Importance(activation, "energies"),
        "taylor": Importance(taylor, "changes"),
        "geometric_median": Importance(geometric_median, "weights"),
    }
)


def relative(scores: Tensor) -> Tensor:
    """`scores: (U,)` over their mean; zeros stay zeros."""
    mean = scores.nanmean()
    return scores / mean if mean > 0 else scores


def _unit_scale(slices: Tensor) -> Tensor:
    size = slices.square().nanmean().sqrt()
    return (slices / size if size > 0 else slices).nan_to_num(0.0)


def _sum(scores: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(scores)).nansum(0)


def _mean(scores: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(scores)).nanmean(0).nan_to_num(0.0)
