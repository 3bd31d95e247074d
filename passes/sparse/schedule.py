"""Pruning within a user's own training loop: shares that rise, and masks that hold between updates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hashcompile.core import pq_index
from hashcompile.core.checks import check_state, counted, is_whole
from hashcompile.core.encoded import encoded_weights
from hashcompile.core.errors import ConfigError, WeightError
from hashcompile.core.rows import RowView
from hashcompile.passes.sparse.config import is_pattern, is_share, kept_of
from hashcompile.passes.sparse.masks import of_all, of_pattern, of_share

RULE = pq_index.Rule()


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
        amount, initial: the share of zeros at the end and in the beginning, from 0 to below 1. "auto" has no cubic: in
            every round go as many of the weights that a layer has left as their PQ index lets go, until `end`
            (sparsity-informed adaptive pruning: Diao et al. 2023, arXiv 2302.05601).
        begin, end: steps between which it rises; `every`: steps from one choice of masks to the next.
        importance: "magnitude", of the weights as they are; or "movement", the sum over all steps of -w dL/dw: weights
            that training moves away from zero stay, and one that went comes back with the value that it had (Sanh,
            Wolf & Rush 2020, arXiv 2005.07683).
        scope: "layer", or "global" for all parameters together, of each of which the best weight stays.
        pattern: "2:4" and the like, in the place of `amount`: of every 4 consecutive weights of an output as many stay
            as the cubic leaves, rounded up, and in the end 2.

    Raises ConfigError.
    """

    def __init__(
        self,
        module: nn.Module,
        amount: float | Literal["auto"] | None = None,
        *,
        end: int,
        begin: int = 0,
        every: int = 1,
        initial: float = 0.0,
        importance: Literal["magnitude", "movement"] = "magnitude",
        scope: Literal["layer", "global"] = "layer",
        pattern: str | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self.settings: dict[str, Any] = {
            "amount": amount,
            "initial": initial,
            "begin": begin,
            "end": end,
            "every": every,
            "importance": importance,
            "scope": scope,
            "pattern": pattern,
        }
        check(self.settings)
        self.begin, self.end, self.every, self.initial = begin, end, every, initial
        self.importance, self.scope, self.pattern = importance, scope, pattern
        self.amount = amount
        if pattern is not None:
            kept, of = kept_of(pattern)
            self.amount = 1 - kept / of
        self.steps = 0
        self._weights = weights_of(module, names)
        self._views = {name: view_of(module, name, weight) for name, weight in self._weights.items()}
        self.masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in self._weights.items()}
        self._scores: dict[str, Tensor] = {}
        self._values: dict[str, Tensor] = {}  # of movement: what weights are, or were when they went
        if importance == "movement":
            self._scores = {name: torch.zeros_like(w) for name, w in self._weights.items()}
            self._values = {name: w.detach().clone() for name, w in self._weights.items()}

    def sparsity(self, step: int) -> float:
        """s at a step; `initial` before the beginning, `amount` after the end. Raises ConfigError where it is "auto",
        and weights tell."""
        if self.amount == "auto":
            raise ConfigError('PruningSchedule(amount="auto"): weights tell how many go, not the step')
        assert self.amount is not None
        part = min(max((step - self.begin) / (self.end - self.begin), 0.0), 1.0)
        return self.amount + (self.initial - self.amount) * (1 - part) ** 3

    @torch.no_grad()
    def step(self) -> None:
        """Hold the masks; where it is time, choose them anew first. Raises WeightError where training went to NaN, and
        ConfigError where movement is asked for and the gradients are gone already.
        """
        moves = self.importance == "movement"
        gradients = {name: gradient_of(weight) for name, weight in self._weights.items()} if moves else {}
        if moves and self.steps < self.end and not self._told(gradients.values()):
            raise ConfigError(
                'PruningSchedule(importance="movement"): no weight has a gradient: call step() behind that of the '
                "optimizer, and zero_grad() behind both"
            )
        self.steps += 1
        for name, weight in self._weights.items():
            if moves:
                value = self._values[name]
                value.copy_(torch.where(self.masks[name], weight, value))
                # a step that gradient scaling skips, as its gradients overflowed, moved nothing
                if (gradient := gradients[name]) is not None and bool(torch.isfinite(gradient).all()):
                    self._scores[name] -= value * gradient
        due = self.begin <= self.steps <= self.end
        if due and ((self.steps - self.begin) % self.every == 0 or self.steps == self.end):
            self.masks = self._chosen()
        for name, weight in self._weights.items():
            value = self._values.get(name, weight)
            weight.copy_(torch.where(self.masks[name], value, 0.0))

    def _told(self, gradients: Iterable[Tensor | None]) -> bool:
        """Do gradients say something? Zeros do where others came before: a loss may be satisfied by a batch."""
        held = [each for each in gradients if each is not None]
        before = self._scores.values() if held else ()
        return any(bool(each.any()) for each in (*held, *before))

    def _chosen(self) -> dict[str, Tensor]:
        scores = self._scores or {name: weight.abs() for name, weight in self._weights.items()}
        for name, each in scores.items():
            if not bool(torch.isfinite(each).all() and torch.isfinite(self._weights[name]).all()):
                raise WeightError(f"PruningSchedule: step {self.steps}: {name} holds NaN or infinite values")
        if self.amount == "auto":
            return {name: of_share(each, self._adaptive(name)) for name, each in scores.items()}
        share = self.sparsity(self.steps)
        if self.pattern is not None:
            of = kept_of(self.pattern)[1]
            kept = of - math.floor(share * of + 1e-9)
            views = {name: self._views[name] for name in scores}
            return {
                name: view.weight(of_pattern(view.rows(scores[name]), kept, of))
                for name, view in views.items()
            }
        if self.scope == "global":
            return of_all(scores, share)
        return {name: of_share(each, share) for name, each in scores.items()}

    def _adaptive(self, name: str) -> float:
        """The share of a parameter that is zero after one more round by the PQ index of what is left of it."""
        mask = self.masks[name]
        index = pq_index.pq_index(self._weights[name][mask], RULE.p, RULE.q)
        left = float(mask.double().mean()) if mask.numel() else 0.0
        return 1 - left * (1 - RULE.removable(index))

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint, beside that of the optimizer."""
        return {
            **self.settings,
            "steps": self.steps,
            "masks": dict(self.masks),
            "scores": dict(self._scores),
            "values": dict(self._values),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`, for the same module and settings. Raises ConfigError for another one's."""
        check_state("PruningSchedule", state, self.settings, ("steps", "masks", "scores", "values"))
        shapes = {name: weight.shape for name, weight in self._weights.items()}
        if {name: mask.shape for name, mask in state["masks"].items()} != shapes:
            raise ConfigError("PruningSchedule.load_state_dict: the masks are those of other parameters")
        self.steps = counted("PruningSchedule", "steps", state["steps"])
        self.masks, self._scores, self._values = (
            {name: each.to(self._weights[name].device, copy=True) for name, each in state[kind].items()}
            for kind in ("masks", "scores", "values")
        )


def check(given: Mapping[str, Any]) -> None:
    """Settings of a schedule. Raises ConfigError."""

    def wrong(name: str, wanted: str) -> ConfigError:
        return ConfigError(f"PruningSchedule({name}={given[name]!r}): {name} must be {wanted}")

    if (given["amount"] is None) == (given["pattern"] is None):
        raise ConfigError(
            'PruningSchedule takes exactly one of amount and pattern: amount=0.9, or pattern="2:4"'
        )
    if given["amount"] not in (None, "auto") and not is_share(given["amount"]):
        raise wrong("amount", 'a share from 0 to below 1, such as 0.9, or "auto"')
    if given["pattern"] is not None and not is_pattern(given["pattern"]):
        raise wrong("pattern", 'how many stay of how many, such as "2:4"')
    if not is_share(given["initial"]):
        raise wrong("initial", "a share from 0 to below 1")
    if given["initial"] and given["amount"] == "auto":
        raise wrong("initial", '0 with amount="auto", which begins with all weights')
    for name, least in (("begin", 0), ("end", 1), ("every", 1)):
        if not (is_whole(given[name]) and given[name] >= least):
            raise wrong(name, f"a whole number of steps, at least {least}")
    if not given["begin"] < given["end"]:
        raise wrong("end", f"above begin={given['begin']}")
    if given["importance"] not in ("magnitude", "movement"):
        raise wrong("importance", '"magnitude" or "movement"')
    if given["scope"] not in ("layer", "global"):
        raise wrong("scope", '"layer" or "global"')
    if given["scope"] == "global" and (given["pattern"] is not None or given["amount"] == "auto"):
        raise wrong("scope", '"layer" with a pattern and with amount="auto", which look at one layer')


def weights_of(module: nn.Module, names: Sequence[str] | None) -> dict[str, nn.Parameter]:
    """The parameters to prune. Raises ConfigError for names of nothing, and for the inside of a code."""
    held = dict(module.named_parameters())
    if names is None:
        names = [name for name, value in held.items() if value.ndim > 1]
    elif isinstance(names, str) or not (
        isinstance(names, Sequence) and all(isinstance(name, str) for name in names)
    ):
        raise ConfigError(
            f'PruningSchedule(names={names!r}): wanted names of parameters, such as ["fc.weight"]'
        )
    if unknown := [name for name in names if name not in held]:
        raise ConfigError(f"PruningSchedule(names=...): the module has no parameter {unknown[0]!r}")
    for code in encoded_weights(module):
        if inside := [name for name in names if name.startswith(f"{code}.")]:
            raise ConfigError(
                f"PruningSchedule: {inside[0]} is no weight but what a code computes one from: prune first; "
                "hc.Sparse(amount=0, bits=..., learn=True) then learns a codebook of what is kept. Or list other "
                "parameters in names="
            )
    if not names:
        raise ConfigError("PruningSchedule: the module has no parameter of two or more dims; name some")
    return {name: held[name] for name in names}


def view_of(module: nn.Module, name: str, weight: Tensor) -> RowView:
    """A row for each output, whose weights a transposed convolution holds by inputs."""
    owner = module.get_submodule(name.rpartition(".")[0])
    if isinstance(owner, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        return RowView(tuple(weight.shape), owner.groups)
    return RowView(tuple(weight.shape))


def gradient_of(weight: Tensor) -> Tensor | None:
    """Dense; that of some embeddings is sparse."""
    return None if weight.grad is None else weight.grad.to_dense()
