"""What is measured: a model, its inputs, and all that a peer may need to prepare it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

Inputs = Mapping[str, Tensor]  # by the names that forward() gives them


@dataclass(frozen=True)
class Recipe:
    """A function and its arguments: how another process makes the same model."""

    module: str
    function: str
    arguments: tuple[Any, ...] = ()

    def make(self) -> nn.Module:
        return getattr(import_module(self.module), self.function)(*self.arguments)


@dataclass(frozen=True)
class Subject:
    """`cases` maps a label, such as "batch 8", to inputs; the first one is what memory is measured on."""

    name: str
    recipe: Recipe
    cases: Mapping[str, Inputs]
    dynamic_shapes: Any = None  # as torch.export takes them
    calibration: Callable[[], list[Inputs]] | None = None
    kind: Literal["matmul", "convolution"] = "matmul"  # where its weights are
    fitted: bool = True  # are our codes fitted to calibration data? Not where random weights serve for speed

    @cached_property
    def model(self) -> nn.Module:
        return self.recipe.make()

    @property
    def example(self) -> Inputs:
        """The inputs of one case, not of batch 1: torch.export would take a 1 for a constant."""
        return max(self.cases.values(), key=lambda inputs: sum(value.numel() for value in inputs.values()))

    def samples(self) -> list[Inputs]:
        """Calibration data: the subject's own, else what is timed."""
        return self.calibration() if self.calibration else list(self.cases.values())

    @cached_property
    def samples_digest(self) -> str:
        """SHA-256 of the calibration data: where the data folder is missing, others are taken."""
        digest = hashlib.sha256()
        for sample in self.samples():
            for name, value in sample.items():
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode() + value.numpy().tobytes())
        return digest.hexdigest()

    def macs(self, case: str) -> int:
        """Multiply-adds of one inference, all matrix products and convolutions counted, as PyTorch counts them."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.model(**self.cases[case])
        return counter.get_total_flops() // 2

    def dense_bytes(self) -> int:
        """Of the parameters and buffers as they are."""
        tensors = self.model.state_dict().values()
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
