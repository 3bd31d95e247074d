"""model + method -> a frozen Plan: for every layer the decision, or the refusal and its reason."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch

from hashcompile.core.encoded import encoded_weights
from hashcompile.core.errors import ConfigError, WeightError
from hashcompile.core.graph import CompressedGraph
from hashcompile.core.kept import Kept
from hashcompile.core.layers import Kind, Layer, layers, unfit
from hashcompile.core.method import Method
from hashcompile.core.reshaping import Reshaping
from hashcompile.core.rows import RowView
from hashcompile.passes import known_config, method_named, method_of, rewrite_of

Rules = tuple[tuple[str, Any], ...]  # (glob over layer names, config or None); later entries win


@dataclass(frozen=True)
class Decision:
    """What happens to one layer: `config` says how it is encoded, or `reason` why it is left alone."""

    layer: Layer
    config: Any | None
    reason: str | None

    @property
    def method(self) -> Method | None:
        return method_of(self.config) if self.config is not None else None


@dataclass(frozen=True)
class Plan:
    """One decision a layer, in execution order; and what structural stages did to their shapes."""

    decisions: tuple[Decision, ...]
    reshaping: Reshaping | None = None

    def __iter__(self) -> Iterator[Decision]:
        return iter(self.decisions)

    def __len__(self) -> int:
        return len(self.decisions)

    def __getitem__(self, name: str) -> Decision:
        for decision in self.decisions:
            if name in (decision.layer.name, decision.layer.parameter):
                return decision
        raise KeyError(f"{name!r}; layers are {[decision.layer.name for decision in self]}")

    @property
    def encoded(self) -> tuple[Decision, ...]:
        return tuple(decision for decision in self if decision.config is not None)

    @property
    def refused(self) -> tuple[Decision, ...]:
        return tuple(decision for decision in self if decision.config is None)

    @property
    def kept(self) -> Kept:
        """For every parameter and buffer of the model that came first, the indices that are left, for each dim that
        carries channels: `kept["conv1.weight"] == {0: LongTensor, 1: LongTensor}`. Empty without a structural stage.

        A parameter that layers read in parts has an entry for the whole of it, and one for each part, such as
        `attn.in_proj_weight.0`: parts may lose different inputs, and the whole then tells those that any has left.
        """
        return self.reshaping.of_whole_tensors if self.reshaping else {}

    def reshaped(self, graph: CompressedGraph, reshaping: Reshaping | None) -> Plan:
        """This plan with the layers as a structural stage left them."""
        now = {layer.parameter: layer for layer in layers(graph)}
        decisions = [replace(d, layer=now.get(d.layer.parameter, d.layer)) for d in self]
        return Plan(tuple(decisions), reshaping)

    def then(self, later: Plan) -> Plan:
        """This plan followed by `later`, which no longer sees what this one encoded."""
        done = {decision.layer.parameter: decision for decision in self.encoded}
        news = {decision.layer.parameter: decision for decision in later}
        merged = [done.get(d.layer.parameter) or news.get(d.layer.parameter, d) for d in self]
        return Plan(tuple(merged), self.reshaping)

    def describe(self) -> dict[str, Any]:
        """The plan as JSON values."""
        decisions = [
            {
                "layer": {**asdict(d.layer), "dtype": str(d.layer.dtype).removeprefix("torch.")},
                "method": d.method.name if d.method else None,
                "config": described(d.config) if d.config is not None else None,
                "reason": d.reason,
            }
            for d in self
        ]
        return {
            "decisions": decisions,
            "reshaping": self.reshaping.describe() if self.reshaping else None,
        }

    @classmethod
    def restore(cls, description: Mapping[str, Any]) -> Plan:
        """Inverse of `describe`."""
        reshaping = description["reshaping"]
        return cls(
            tuple(restore_decision(entry) for entry in description["decisions"]),
            Reshaping.restore(reshaping) if reshaping is not None else None,
        )

    def __str__(self) -> str:
        width = max((len(decision.layer.name) for decision in self), default=0)
        return "\n".join(
            f"{d.layer.name:<{width}}  {d.config or 'left alone: ' + str(d.reason)}" for d in self
        )


def described(config: Any) -> dict[str, Any]:
    """A config as JSON values; a function of the user's, such as a loss, has done its work."""
    return {name: value for name, value in asdict(config).items() if not callable(value)}


def restore_decision(entry: Mapping[str, Any]) -> Decision:
    layer = Layer(
        name=entry["layer"]["name"],
        parameter=entry["layer"]["parameter"],
        kinds=tuple(Kind(kind) for kind in entry["layer"]["kinds"]),
        view=RowView(tuple(entry["layer"]["view"]["shape"]), entry["layer"]["view"]["transposed_groups"]),
        dtype=getattr(torch, entry["layer"]["dtype"]),
        consumers=tuple(entry["layer"]["consumers"]),
        others=tuple(entry["layer"]["others"]),
        tied=tuple(entry["layer"]["tied"]),
        final=entry["layer"].get("final", False),
        padding=entry["layer"].get("padding"),
    )
    config = method_named(entry["method"]).config(**entry["config"]) if entry["method"] else None
    return Decision(layer, config, entry["reason"])


def stages(method: Any) -> tuple[Rules, ...]:
    """The user's `method` argument as a sequence of rule lists, one a stage. Raises ConfigError."""
    if isinstance(method, (list, tuple)):
        if not method:
            raise ConfigError(
                "method is an empty list: give at least one config, such as hc.Codebook(bits=4)"
            )
        found = tuple(rules for entry in method for rules in stages(entry))
        check_pools(found)
        return found
    rules = tuple(method.items()) if isinstance(method, Mapping) else (("*", method),)
    if not rules:
        raise ConfigError('method is an empty dict: give {glob: config}, such as {"*": hc.Codebook(bits=4)}')
    for glob, config in rules:
        if not isinstance(glob, str):
            raise ConfigError(f"method keys are globs over layer names, got {glob!r}")
        if config is not None:
            known_config(config)
    if all(config is None for _, config in rules):
        raise ConfigError("method leaves every layer alone: give a config, such as hc.Codebook(bits=4)")
    if len({rewrite_of(config) is None for _, config in rules if config is not None}) > 1:
        raise ConfigError(
            "one dict both reshapes layers and encodes them: give a list of two, such as "
            "[hc.PruneChannels(amount=0.3), hc.Codebook(bits=4)], which are applied in order"
        )
    check_pools((rules,))
    return (rules,)


def check_pools(found: Sequence[Rules]) -> None:
    """Raise ConfigError where one name would be that of several pools: those of unequal configs, and of two stages."""
    pools: dict[str, tuple[int, Any]] = {}
    for stage, rules in enumerate(found):
        for _, config in rules:
            name = getattr(config, "pool", None)
            if name is not None and pools.setdefault(name, (stage, config)) != (stage, config):
                raise ConfigError(
                    f"pool {name!r} is one array of values: give one config with it, in one stage, to all its layers; "
                    f"this one is {config!r}, and there is {pools[name][1]!r}"
                )


def structural(rules: Rules) -> bool:
    """Does a stage change shapes? Else it encodes weights."""
    return any(rewrite_of(config) is not None for _, config in rules)


def make_plan(graph: CompressedGraph, rules: Rules) -> Plan:
    """Decide every layer of `graph`. Raises ConfigError for a glob that matches nothing, WeightError for a dtype."""
    check_globs(graph, rules)
    return Plan(tuple(decide(layer, rules) for layer in layers(graph)))


def dense_plan(graph: CompressedGraph, reshaping: Reshaping | None) -> Plan:
    """The plan where no stage encodes anything."""
    whole = {
        refusal.layer: f"no stage encodes it, and it stays whole: {refusal.reason}"
        for refusal in (reshaping.refused if reshaping else ())
        if refusal.channels == refusal.of
    }
    found = layers(graph)
    return Plan(tuple(Decision(each, None, whole.get(each.name, "no stage encodes it")) for each in found))


def check_globs(graph: CompressedGraph, rules: Rules) -> None:
    """Raise ConfigError for a key that is no glob, or one that matches nothing."""
    found = tuple(layers(graph))
    encoded = encoded_weights(graph)
    for glob, _ in rules:
        if not isinstance(glob, str):
            raise ConfigError(f'{{{glob!r}: ...}}: a key is a glob over names of layers, such as "layer1.*"')
        if any(matches(glob, layer) for layer in found) or (glob == "*" and not encoded):
            continue
        taken = [
            code
            for name, code in encoded.items()
            if fnmatchcase(name, glob) or fnmatchcase(name.removesuffix(".weight"), glob)
        ]
        if taken:
            advice = (
                "a code is not reshaped: put structural stages first, as in [hc.LowRank(rank=8), hc.Codebook(bits=4)]"
                if structural(rules)
                else f"a weight has one code: {taken[0].second}"
            )
            raise ConfigError(
                f"every layer that {glob!r} matches was already encoded by an earlier stage, and {advice}"
            )
        names = [layer.name for layer in found]
        near = difflib.get_close_matches(glob, names, n=3, cutoff=0.3) or names[:3]
        raise ConfigError(f"no layer matches {glob!r}; did you mean {' or '.join(map(repr, near))}?")


def choose(layer: Layer, rules: Rules) -> tuple[Any, str | None]:
    """(config, glob): of the last entry whose glob matches."""
    config, glob = None, None
    for glob_, config_ in rules:
        if matches(glob_, layer):
            config, glob = config_, glob_
    return config, glob


def decide(layer: Layer, rules: Rules) -> Decision:
    config, glob = choose(layer, rules)
    if config is None:
        return Decision(layer, None, f"excluded by {glob!r}" if glob else "no glob matches it")
    reason = unfit(layer)
    if layer.consumers and layer.dtype != torch.float32:
        raise WeightError(
            f"layer {layer.name}: its weight is {layer.dtype}, wanted torch.float32: call model.float() first"
        )
    reason = reason or method_of(config).refuse(layer, config)
    return Decision(layer, None, reason) if reason else Decision(layer, config, None)


def matches(glob: str, layer: Layer) -> bool:
    """Does `glob` name the layer, its parameter, or another layer that shares its weight?"""
    names = (layer.name, layer.parameter, *(name.removesuffix(".weight") for name in layer.tied), *layer.tied)
    return any(fnmatchcase(name, glob) for name in names)
