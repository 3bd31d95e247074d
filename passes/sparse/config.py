"""What the user writes: `Sparse(amount=0.9)`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from hashcompile.core.checks import is_number, is_whole
from hashcompile.core.errors import ConfigError
from hashcompile.core.gradients import Loss

AT_START = ("snip", "grasp", "synflow")  # scores of a model that is still to be trained
IMPORTANCES = ("magnitude", "wanda", "sparsegpt", *AT_START)


@dataclass(frozen=True)
class Sparse:
    """The least important weights become zero, and the others alone are stored; they train under a fixed mask.

    amount: the share of weights that go, from 0 to below 1. "auto" reads it off each layer's weights by their PQ
        index. 0 stores a weight that is sparse already.
    importance: "magnitude": |w|. "wanda": |w| times the norm of its input, among the weights of one output
        (Sun et al. 2024, arXiv 2306.11695). "sparsegpt": what the outputs lose, column by column, while later columns
        make up for it (Frantar & Alistarh 2023, arXiv 2301.00774). Both need calibration data. Before training: "snip",
        "grasp" (calibration data, and a `loss`) and "synflow" (neither); the graph that `compile` returns is then the
        one to train. Movement is read off training itself: `hc.PruningSchedule`.
    scope: "layer": every layer loses its share. "global": the least important weights of all layers go.
    pattern: "2:4" and the like: of every 4 consecutive inputs 2 stay. It takes the place of `amount`.
    bits: None keeps float32; 1 to 8 gives every kept weight one of 2**bits values, times a scale for each output,
        with error feedback among kept weights only.
    learn: the codebook trains, and which of its values a kept weight takes, in `compiled.graph_module` or under
        `CodebookTraining`; zeros stay zero.
    correction: with calibration data, kept weights make up for those that went; "sparsegpt" always does.
    loss: for "snip" and "grasp", from the outputs and the number of a calibration batch to a scalar, which may know
        labels; None looks at the outputs themselves.

    Raises ConfigError.
    """

    amount: float | Literal["auto"] | None = None
    importance: str = "magnitude"
    scope: Literal["layer", "global"] = "layer"
    pattern: str | None = None
    bits: int | None = None
    correction: bool = False
    loss: Loss | None = None
    learn: bool = False

    def __post_init__(self) -> None:
        if (self.amount is None) == (self.pattern is None):
            raise ConfigError(
                'Sparse takes exactly one of amount and pattern: Sparse(amount=0.9), Sparse(pattern="2:4")'
            )
        if self.amount is not None and self.amount != "auto" and not is_share(self.amount):
            raise self.wrong("amount", 'a share from 0 to below 1, such as 0.9, or "auto"')
        if self.importance == "movement":
            raise self.wrong(
                "importance", "of weights as they are: movement is that of training, hc.PruningSchedule"
            )
        if self.importance not in IMPORTANCES:
            raise self.wrong("importance", f"one of {', '.join(IMPORTANCES)}")
        if self.scope not in ("layer", "global"):
            raise self.wrong("scope", '"layer" or "global"')
        if self.pattern is not None and not is_pattern(self.pattern):
            raise self.wrong("pattern", 'how many stay of how many, such as "2:4"')
        if self.scope == "global" and (
            self.pattern or self.amount == "auto" or self.importance in ("wanda", "sparsegpt")
        ):
            raise self.wrong(
                "scope", '"layer" with a pattern, amount="auto", wanda and sparsegpt, which look at one layer'
            )
        if self.importance in AT_START and self.amount == "auto":
            raise self.wrong(
                "amount", "a share before training: untrained weights are alike, and tell nothing"
            )
        if self.bits is not None and not (is_whole(self.bits) and 1 <= self.bits <= 8):
            raise self.wrong("bits", "a whole number from 1 to 8, or None")
        for name in ("correction", "learn"):
            if not isinstance(getattr(self, name), bool):
                raise self.wrong(name, "True or False")
        if self.learn and self.bits is None:
            raise self.wrong("learn", "False without bits: what learns is the codebook of kept weights")
        if self.importance in AT_START and (self.bits is not None or self.correction):
            raise self.wrong("importance", "of a trained model where bits or correction are given")
        if self.loss is not None and (not callable(self.loss) or self.importance not in ("snip", "grasp")):
            raise self.wrong(
                "loss", 'a function of outputs and batch number, with importance="snip" or "grasp"'
            )

    def wrong(self, name: str, wanted: str) -> ConfigError:
        return ConfigError(f"Sparse({name}={getattr(self, name)!r}): {name} must be {wanted}")

    @property
    def kept_of(self) -> tuple[int, int]:
        """(N, M) of the pattern."""
        return kept_of(self.pattern or "1:1")

    def __str__(self) -> str:
        amount = self.pattern or ("auto" if self.amount == "auto" else f"{self.amount:.1%}")
        extent = ", global" if self.scope == "global" else ""
        coded = f", codebook {self.bits} bit" if self.bits else ""
        return f"sparse {amount} by {self.importance}{extent}{coded}{', learnt' if self.learn else ''}"


def is_share(value: Any) -> bool:
    """From 0 to below 1."""
    return is_number(value) and 0 <= value < 1


def is_pattern(value: Any) -> bool:
    """N:M, of which N is less than M."""
    if not isinstance(value, str) or not re.fullmatch(r"[1-9]\d{0,3}:[1-9]\d{0,3}", value, re.ASCII):
        return False
    kept, of = kept_of(value)
    return kept < of


def kept_of(pattern: str) -> tuple[int, int]:
    kept, of = pattern.split(":")
    return int(kept), int(of)
