"""Learnt codebooks within a user's own training loop: prepared, annealed, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hashcompile.core.checks import check_state, counted, is_number, is_whole
from hashcompile.core.encoded import EncodedWeight, stand_for
from hashcompile.core.errors import ConfigError, WeightError
from hashcompile.core.layers import BAG, SMALLEST, Kind, Layer
from hashcompile.core.learning import LearningCode
from hashcompile.core.method import COMPUTES, Compute, Statistics
from hashcompile.core.rows import RowView
from hashcompile.passes import method_of
from hashcompile.passes.codebook import Codebook
from hashcompile.passes.sparse import Sparse

KINDS: dict[type[nn.Module], Kind] = {
    nn.Linear: Kind.LINEAR,
    nn.Conv1d: Kind.CONV,
    nn.Conv2d: Kind.CONV,
    nn.Conv3d: Kind.CONV,
    nn.ConvTranspose1d: Kind.CONV_TRANSPOSE,
    nn.ConvTranspose2d: Kind.CONV_TRANSPOSE,
    nn.ConvTranspose3d: Kind.CONV_TRANSPOSE,
    nn.Embedding: Kind.EMBEDDING,
}


Learnt = Codebook | Sparse
BY_GRAPH = (
    "it is no weight that the module holds as such: compile with the method, and give compiled.graph_module"
)


class CodebookTraining:
    """Prepares a model so that its codebooks learn, anneals while they do, and leaves an index for every weight.

        training = hc.CodebookTraining(model, hc.Codebook(bits=2, learn=True), steps=1000)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)  # made afterwards: parameters are others
        for batch in data:
            loss(model, batch).backward(); optimizer.step(); optimizer.zero_grad(); training.step()
        training.freeze()
        compiled = hc.compile(model, inputs, method=hc.Codebook(bits=2))  # finds these codes, and fits nothing

    Every weight becomes codebook[index] * scale, computed by a parametrization (`torch.nn.utils.parametrize`) from
    three parameters: a latent weight, the table, and the scales of the rows. The start is the code that `compile` would
    fit without data. To begin with one that is fitted to data, compile with `Codebook(learn=True)` and calibration, and
    give `compiled.graph_module` without a method: its codes are the ones that learn, and `compiled` exports them.

    The optimizer, gradient scaling, autocast and DistributedDataParallel (wrap afterwards) see an ordinary module. In
    evaluation mode it computes what will be stored. Before the last `hold` share of the steps assignments train, then
    they are held: tables, scales and whatever else trains settle on the network that will be.

    Args:
        model: changed in place. Weights of its linear, convolution and embedding layers learn. Of an embedding with
            sparse=True that becomes False, for good: what its rows are computed from has dense gradients.
        method: a `Codebook` with learn=True; or a `Sparse` with learn=True, by magnitude and layer, of which kept
            weights learn and zeros stay (with amount=0 those that are zero already: prune first); or {glob over module
            names: config or None}, later ones win.
        steps: calls of `step` that the schedule is for.
        by: "soft", differentiable k-means: a weight is a mixture of the allowed ones, which cools down to the nearest;
            or "straight-through": it is the nearest all along, and gradients pass as if it were itself.
        temperature: of the mixture, in the beginning and before assignments are held; it falls geometrically. At 1 the
            mixture nearly follows the latent weight, at 0 it is the nearest entry.
        hold: share of the steps, at the end, in which assignments do not change. With 1 they never do: tables are
            tuned, on the grid of the int8 kernels where `compute` asks for it.
        compute: as in `compile`; for "int8" tables learn on the grid of the int8 kernels.

    Attributes: `weights`, those that learn, and `refused`, reasons why others are left alone; by parameter.

    Raises ConfigError, WeightError.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Learnt | Mapping[str, Learnt | None] | None = None,
        *,
        steps: int,
        by: Literal["soft", "straight-through"] = "soft",
        temperature: tuple[float, float] = (1.0, 0.02),
        hold: float = 0.2,
        compute: Compute = "int8",
    ) -> None:
        if not is_whole(steps) or steps < 1:
            raise ConfigError(f"CodebookTraining(steps={steps!r}): wanted a whole number of at least 1")
        if by not in ("soft", "straight-through"):
            raise ConfigError(f'CodebookTraining(by={by!r}): wanted "soft" or "straight-through"')
        if (
            not isinstance(temperature, tuple)
            or len(temperature) != 2
            or not all(is_number(each) for each in temperature)
            or not temperature[0] >= temperature[1] > 0
        ):
            raise ConfigError(
                f"CodebookTraining(temperature={temperature!r}): wanted two finite numbers that fall and are above 0, "
                "such as (1.0, 0.02)"
            )
        if not is_number(hold) or not 0 <= hold <= 1:
            raise ConfigError(f"CodebookTraining(hold={hold!r}): wanted a share from 0 to 1")
        if compute not in COMPUTES:
            raise ConfigError(f'CodebookTraining(compute={compute!r}): wanted "int8", "float" or "bf16"')
        self.steps, self.by, self.temperature, self.hold = steps, by, temperature, hold
        self.done = 0
        self.refused: dict[str, str] = {}
        self._model = model
        if method is not None:
            self._prepare(method, compute)
        self.weights = {
            name.replace(".parametrizations.", ".").removesuffix(".0"): child
            for name, child in model.named_modules()
            if isinstance(child, LearningCode)
        }
        if not self.weights:
            reasons = "".join(f"; {name}: {reason}" for name, reason in self.refused.items())
            raise ConfigError(
                "CodebookTraining: no weight of this model learns; give a method such as "
                f"hc.Codebook(bits=4, learn=True), or compile with it and give compiled.graph_module{reasons}"
            )
        self._set()

    def step(self) -> None:
        """Behind every `optimizer.step()`: cool down; hold assignments once it is time. Raises WeightError where
        training went to NaN, and ConfigError where the model is in evaluation mode, in which nothing is a mixture."""
        self._check()
        evaluated = self.weights and not any(code.training for code in self.weights.values())
        if self.by == "soft" and not self._held and evaluated:
            raise ConfigError(
                'CodebookTraining(by="soft"): the model is in evaluation mode, in which every weight is the nearest '
                "allowed one: call model.train() before it trains"
            )
        self.done += 1
        self._set()

    def freeze(self) -> None:
        """Leave a `CodebookWeight` or a `SparseWeight` for every code that learnt, whose tables and scales still train.
        For good. Raises WeightError where training went to NaN."""
        self._check()
        stored: dict[nn.Module, EncodedWeight] = {}
        for parent in list(self._model.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, LearningCode):
                    if child not in stored:
                        stored[child] = child.stored().train(child.training)
                        stored[child].requires_grad_(child.latent.requires_grad)
                    setattr(parent, name, stored[child])
        self.weights = {}

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint, beside those of the model and the optimizer."""
        return {"done": self.done, **self._settings}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`, beside the model's own. Raises ConfigError for that of another schedule."""
        check_state("CodebookTraining", state, self._settings, {"done"})
        self.done = counted("CodebookTraining", "done", state["done"])
        for weight in self.weights.values():
            weight.held = self._held  # at the indices that come with the model's state
        self._set()

    @property
    def _settings(self) -> dict[str, Any]:
        return {"steps": self.steps, "by": self.by, "temperature": self.temperature, "hold": self.hold}

    def _check(self) -> None:
        for name, weight in self.weights.items():
            try:
                weight.check()
            except WeightError as error:
                raise WeightError(f"{name}: {error}; lower the learning rate, or clip gradients") from error

    @property
    def _held(self) -> bool:
        return self.done >= (1 - self.hold) * self.steps

    def _set(self) -> None:
        first, last = self.temperature
        part = 1.0 if self._held else self.done / ((1 - self.hold) * self.steps)
        for weight in self.weights.values():
            weight.temperature = first * (last / first) ** part if self.by == "soft" else 0.0
            if self._held:
                weight.hold()

    def _prepare(self, method: Learnt | Mapping[str, Learnt | None], compute: Compute) -> None:
        if isinstance(self._model, DistributedDataParallel):
            raise ConfigError(
                "CodebookTraining: parameters change, and DistributedDataParallel has seen them already; "
                "prepare the model first, then wrap it"
            )
        rules = dict(method) if isinstance(method, Mapping) else {"*": method}
        for config in rules.values():
            if config is not None and not (isinstance(config, (Codebook, Sparse)) and config.learn):
                raise ConfigError(
                    f"CodebookTraining({config!r}): wanted hc.Codebook(..., learn=True) or "
                    "hc.Sparse(amount=0, bits=..., learn=True)"
                )
            if isinstance(config, Sparse) and (config.importance, config.scope) != ("magnitude", "layer"):
                raise ConfigError(
                    f"CodebookTraining({config!r}): by magnitude and layer only, as there is no data; compile with it, "
                    "and give compiled.graph_module"
                )
        modules = {name: each for name, each in self._model.named_modules() if kind_of(each) is not None}
        for glob in rules:
            if not isinstance(glob, str):
                raise ConfigError(
                    f'CodebookTraining({{{glob!r}: ...}}): a key is a glob over names of layers, such as "layer1.*"'
                )
            if glob != "*" and not any(fnmatchcase(name, glob) for name in modules):
                raise ConfigError(
                    f"CodebookTraining: no layer matches {glob!r}; layers are {sorted(modules)}"
                )
        chosen = {
            name: next((rules[glob] for glob in reversed(rules) if fnmatchcase(name, glob)), None)
            for name in modules
        }
        for name, module in modules.items():
            if chosen[name] is not None and getattr(module, "max_norm", None) is not None:
                raise ConfigError(
                    f"CodebookTraining: the embedding {name} has max_norm={module.max_norm}, and would rescale rows "
                    "that are computed anew for each run: set its max_norm to None, which compile asks for as well"
                )
        codes: dict[nn.Parameter, LearningCode] = {}  # a tied parameter has one
        for name, module in modules.items():
            weight: Any = module._parameters.get("weight")
            config = chosen[name]
            if config is None:
                continue
            if weight is None:
                self.refused[f"{name}.weight"] = not_held(name, module, config)
                continue
            if weight not in codes:
                found = begin(name, module, config, compute)
                if isinstance(found, str):
                    self.refused[f"{name}.weight"] = found
                    continue
                codes[weight] = found
            stand_for(module, "weight", codes[weight])
            if isinstance(module, nn.Embedding):
                module.sparse = False
        for name, value in self._model.named_parameters():
            owner, _, leaf = name.rpartition(".")
            if isinstance(self._model.get_submodule(owner), nn.EmbeddingBag):
                self.refused[name] = f"nn.EmbeddingBag has no compressed form: {BAG}"
            elif (
                value.ndim > 1
                and leaf != "weight"
                and value.numel() >= SMALLEST
                and "parametrizations" not in owner
            ):
                self.refused[name] = BY_GRAPH


def not_held(name: str, module: nn.Module, config: Learnt) -> str:
    """Why a layer without a parameter `weight` is left alone. Raises ConfigError for one that learns in another way."""
    parametrizations: Any = getattr(module, "parametrizations", {})
    code = parametrizations["weight"][0] if "weight" in parametrizations else None
    if isinstance(code, LearningCode):
        if code.bits != config.bits:
            raise ConfigError(
                f"CodebookTraining({config!r}): the weight of {name} learns already, in {code.bits} bits: give no "
                "method to go on with it"
            )
        return "its weight learns already"
    return BY_GRAPH


def kind_of(module: nn.Module) -> Kind | None:
    return next((kind for known, kind in KINDS.items() if isinstance(module, known)), None)


def begin(name: str, module: nn.Module, config: Learnt, compute: Compute) -> LearningCode | str:
    """The code of a layer's weight as fitted without data; or the reason why there is none. Raises WeightError."""
    weight: Any = module.weight
    kind = kind_of(module)
    assert kind is not None
    if weight.dtype != torch.float32:
        raise WeightError(
            f"layer {name}: its weight is {weight.dtype}, wanted torch.float32: call model.float() first; "
            "autocast computes in less"
        )
    groups = module.groups if kind is Kind.CONV_TRANSPOSE else 0
    view = RowView(tuple(weight.shape), groups)  # type: ignore[arg-type]
    layer = Layer(name, f"{name}.weight", (kind,), view, weight.dtype, (), ())
    if weight.numel() == 0:
        return "its weight is empty"
    found = method_of(config)
    if reason := found.refuse(layer, config):
        return reason
    try:
        code = found.encode(weight.detach().cpu(), layer, config, Statistics(0), compute)
    except WeightError as error:
        raise WeightError(f"layer {name}: {error}") from error
    assert isinstance(code, LearningCode)
    return code.to(weight.device).requires_grad_(weight.requires_grad)
