"""When to hash anew while a network trains: once its weights have moved so far that fingerprints would change.

A bit of SimHash changes with probability t / pi when a unit turns by the angle t. A layer is due when the mean of that
over its units, the share of fingerprint bits expected to differ from those of the last hashing, exceeds a tolerance.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hashcompile.core.errors import ConfigError


def changed_bits(before: Tensor, after: Tensor) -> float:
    """Share of SimHash bits expected to differ between (U, ...) and (U, ...), rows being units: mean angle / pi.

    A unit that was zero and is no more, or the other way round, has turned by a right angle.
    """
    old, new = (weight.detach().double().flatten(1) for weight in (before, after))
    lengths = (old.norm(dim=1), new.norm(dim=1))
    both = (lengths[0] > 0) & (lengths[1] > 0)
    unit_old, unit_new = (
        rows / torch.where(length > 0, length, 1.0)[:, None]
        for rows, length in zip((old, new), lengths, strict=True)
    )
    # of unit vectors a, b: exact for small angles, where acos of their product is not
    angle = 2 * torch.atan2((unit_old - unit_new).norm(dim=1), (unit_old + unit_new).norm(dim=1))
    neither = (lengths[0] == 0) & (lengths[1] == 0)
    angle = torch.where(both, angle, math.pi / 2 * (~neither).double())
    return float(angle.mean() / math.pi) if len(angle) else 0.0


class RehashSchedule:
    """Watches the layers of a model that is being trained, and tells which are due.

        schedule = hc.RehashSchedule(compiled.graph_module, tolerance=0.05)
        for batch in data:
            step(batch)
            if schedule.due():
                compiled = hc.compile(compiled.graph_module, inputs, method=hc.MergeChannels(...), ...)
                schedule = hc.RehashSchedule(compiled.graph_module, tolerance=0.05)

    Watched are all parameters of two or more dims, with units along dim 0. Raises ConfigError.
    """

    def __init__(self, model: nn.Module, tolerance: float = 0.05) -> None:
        if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 < tolerance < 1:
            raise ConfigError(
                f"RehashSchedule(tolerance={tolerance!r}): wanted a share of bits between 0 and 1"
            )
        self.tolerance = float(tolerance)
        self._model = model
        self._hashed: dict[str, Tensor] = {}
        self.hashed()

    def hashed(self, *names: str) -> None:
        """Take the weights as they are now for those of the last hashing; of all layers, if none is named."""
        for name, weight in self._weights().items():
            if not names or name in names:
                self._hashed[name] = weight.detach().clone()

    def moved(self) -> dict[str, float]:
        """Share of fingerprint bits expected to have changed since the last hashing, by parameter."""
        return {
            name: changed_bits(self._hashed[name], weight)
            for name, weight in self._weights().items()
            if name in self._hashed and self._hashed[name].shape == weight.shape
        }

    def due(self) -> list[str]:
        """The parameters whose layers are to be hashed anew."""
        return [name for name, share in self.moved().items() if share > self.tolerance]

    def _weights(self) -> dict[str, nn.Parameter]:
        return {name: weight for name, weight in self._model.named_parameters() if weight.ndim > 1}
