"""Pruning within a user's own training loop: shares that rise, and masks that hold between updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hashcompile.core.errors import ConfigError
from hashcompile.passes.sparse.masks import of_share


class PruningSchedule:
    """Sparsity that rises by the cubic of Zhu & Gupta 2017 (arXiv 1710.01878),

        s(t) = amount + (initial - amount) (1 - (t - begin) / (end - begin))^3,    begin <= t <= end

    Call `step()` behind every `optimizer.step()`, before gradients are zeroed:

        schedule = hc.PruningSchedule(model, amount=0.9, end=1000, every=50)
        loss.backward(); optimizer.step(); schedule.step(); optimizer.zero_grad()

    What went is zero after every step, whatever the optimizer did; `compile(..., method=hc.Sparse(amount=0))` then
    stores it sparse.

    Args:
        module: whose parameters of two or more dims are pruned; or those that `names` lists.
        amount, initial: the share of zeros at the end and in the beginning, from 0 to below 1.
        begin, end: steps between which it rises; `every`: steps from one choice of masks to the next.
        importance: "magnitude", of the weights as they are; or "movement", the sum over all steps of -w dL/dw: weights
            that training moves away from zero stay, and one that went comes back with the value that it had (Sanh,
            Wolf & Rush 2020, arXiv 2005.07683).
        scope: "layer", or "global" for all parameters together.

    Raises ConfigError.
    """

    def __init__(
        self,
        module: nn.Module,
        amount: float,
        *,
        end: int,
        begin: int = 0,
        every: int = 1,
        initial: float = 0.0,
        importance: Literal["magnitude", "movement"] = "magnitude",
        scope: Literal["layer", "global"] = "layer",
        names: Sequence[str] | None = None,
    ) -> None:
        for name, value in (("amount", amount), ("initial", initial)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
                raise ConfigError(
                    f"PruningSchedule({name}={value!r}): {name} must be a share from 0 to below 1"
                )
        if not 0 <= begin < end or every < 1:
            raise ConfigError(
                f"PruningSchedule(begin={begin!r}, end={end!r}, every={every!r}): wanted 0 <= begin < end, every >= 1"
            )
        if importance not in ("magnitude", "movement") or scope not in ("layer", "global"):
            raise ConfigError(
                f'PruningSchedule(importance={importance!r}, scope={scope!r}): wanted "magnitude" or "movement", '
                'and "layer" or "global"'
            )
        held = dict(module.named_parameters())
        chosen = [name for name, value in held.items() if value.ndim > 1] if names is None else list(names)
        if unknown := [name for name in chosen if name not in held]:
            raise ConfigError(f"PruningSchedule(names=...): the module has no parameter {unknown[0]!r}")
        if not chosen:
            raise ConfigError("PruningSchedule: the module has no parameter of two or more dims; name some")
        self.amount, self.initial, self.begin, self.end, self.every = amount, initial, begin, end, every
        self.importance, self.scope = importance, scope
        self.steps = 0
        self._weights = {name: held[name] for name in chosen}
        self.masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in self._weights.items()}
        self._scores: dict[str, Tensor] = {}
        self._values: dict[str, Tensor] = {}  # of movement: what weights are, or were when they went
        if importance == "movement":
            self._scores = {name: torch.zeros_like(w) for name, w in self._weights.items()}
            self._values = {name: w.detach().clone() for name, w in self._weights.items()}

    def sparsity(self, step: int) -> float:
        """s at a step; `initial` before the beginning, `amount` after the end."""
        part = min(max((step - self.begin) / (self.end - self.begin), 0.0), 1.0)
        return self.amount + (self.initial - self.amount) * (1 - part) ** 3

    @torch.no_grad()
    def step(self) -> None:
        """Hold the masks; where it is time, choose them anew first."""
        self.steps += 1
        for name, weight in self._weights.items():
            if self.importance == "movement":
                value = self._values[name]
                value.copy_(torch.where(self.masks[name], weight, value))
                if weight.grad is not None:
                    self._scores[name] -= value * weight.grad
        due = self.begin <= self.steps <= self.end
        if due and ((self.steps - self.begin) % self.every == 0 or self.steps == self.end):
            self._choose(self.sparsity(self.steps))
        for name, weight in self._weights.items():
            value = self._values.get(name, weight)
            weight.copy_(torch.where(self.masks[name], value, 0.0))

    def _choose(self, share: float) -> None:
        scores = self._scores or {name: weight.abs() for name, weight in self._weights.items()}
        if self.scope == "layer":
            self.masks = {name: of_share(each, share) for name, each in scores.items()}
            return
        joined = of_share(torch.cat([each.flatten() for each in scores.values()])[None], share)[0]
        parts = joined.split([each.numel() for each in scores.values()])
        pairs = zip(scores.items(), parts, strict=True)
        self.masks = {name: part.reshape(each.shape) for (name, each), part in pairs}

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint, beside that of the optimizer."""
        return {
            "steps": self.steps,
            "masks": dict(self.masks),
            "scores": dict(self._scores),
            "values": dict(self._values),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`, for the same module and settings. Raises ConfigError for another one's."""
        shapes = {name: weight.shape for name, weight in self._weights.items()}
        if {name: mask.shape for name, mask in state["masks"].items()} != shapes:
            raise ConfigError("PruningSchedule.load_state_dict: the masks are those of other parameters")
        if bool(state["scores"]) != (self.importance == "movement"):
            raise ConfigError("PruningSchedule.load_state_dict: the state is that of another importance")
        self.steps = int(state["steps"])
        self.masks = {name: mask.clone() for name, mask in state["masks"].items()}
        self._scores = {name: each.clone() for name, each in state["scores"].items()}
        self._values = {name: each.clone() for name, each in state["values"].items()}
