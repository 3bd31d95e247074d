"""A training that is kept in a file, and goes on from there to the same network, bit by bit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

PAUSE = 60.0  # seconds from one time that it is kept to the next, within an epoch
STATE = ("momentum_buffer", "exp_avg", "exp_avg_sq", "step")  # of a parameter, as SGD and Adam name it


class Schedule(Protocol):
    """What counts steps beside the optimizer, such as `hc.CodebookTraining`. Its state is numbers and words."""

    def step(self) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Checkpoint:
    """Of a model, its optimizers, the generators that training draws from, and a schedule. What is in the file is
    loaded into them at once.

    path: None keeps nothing. epoch: its steps.

    Attributes: `done`, steps that were done before.
    """

    def __init__(
        self,
        path: Path | None,
        epoch: int,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        generators: Sequence[torch.Generator],
        schedule: Schedule | None = None,
    ) -> None:
        self.path, self.epoch, self.done = path, epoch, 0
        self._model, self._optimizers, self._generators = model, optimizers, generators
        self._schedule = schedule
        if path is not None and path.exists():
            self._load(path)
        self._kept_at = monotonic()

    def reached(self, steps: int, end: bool = False) -> None:
        """Keep what there is after so many steps: at the end of an epoch and of all, and every `PAUSE` seconds."""
        due = monotonic() - self._kept_at >= PAUSE
        if self.path is not None and (end or due or steps % self.epoch == 0):
            self._store(self.path, steps)
            self._kept_at = monotonic()

    def _load(self, path: Path) -> None:
        with safetensors.safe_open(path, "pt") as file:
            said = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        self.done = round(float(state.pop("epochs")) * self.epoch)
        for number, generator in enumerate(self._generators):
            if (drawn := state.pop(f"generator.{number}", None)) is not None:
                generator.set_state(drawn)
        for name, parameter in self._model.named_parameters():
            for kind in STATE:
                if (value := state.pop(f"{kind}.{name}", None)) is not None:
                    self._optimizer_of(parameter).state[parameter][kind] = restored(value, parameter)
        self._model.load_state_dict(state)
        if self._schedule is not None:
            self._schedule.load_state_dict(json.loads(said["schedule"]))

    def _store(self, path: Path, steps: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = {"epochs": torch.tensor(steps / self.epoch, dtype=torch.float64), **self._model.state_dict()}
        held |= {f"generator.{i}": each.get_state() for i, each in enumerate(self._generators)}
        for name, parameter in self._model.named_parameters():
            known = next((each.state[parameter] for each in self._optimizers if parameter in each.state), {})
            if unknown := set(known) - set(STATE):
                raise ValueError(f"{path} keeps {', '.join(STATE)} of an optimizer, not {', '.join(unknown)}")
            held |= {f"{kind}.{name}": torch.as_tensor(value) for kind, value in known.items()}
        said = None if self._schedule is None else {"schedule": json.dumps(self._schedule.state_dict())}
        # some share values
        tensors = {key: value.clone(memory_format=torch.contiguous_format) for key, value in held.items()}
        whole = path.with_suffix(".new")
        safetensors.torch.save_file(tensors, whole, said)
        whole.replace(path)

    def _optimizer_of(self, parameter: nn.Parameter) -> torch.optim.Optimizer:
        groups = ((each, group["params"]) for each in self._optimizers for group in each.param_groups)
        return next(each for each, held in groups if any(parameter is one for one in held))


def restored(value: Tensor, parameter: nn.Parameter) -> Tensor | int:
    """SparseAdam counts steps in a whole number, and Adam in a tensor that stays on the CPU."""
    if value.ndim:
        return value.to(parameter.device)
    return value if value.is_floating_point() else int(value)
