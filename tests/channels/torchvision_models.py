"""The classification models of torchvision, on a CPU build of torch.

torchvision's wheel is linked against the CUDA build. Its Python code does all that a classifier needs, once the schemas
of two detection operators exist, of which that code says what they return.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
FIXED = ("vit_", "swin", "maxvit")  # made for one size, or for windows of it


LIBRARIES: list[Any] = []  # a schema lives as long as the library that defined it


def module() -> Any:
    """`torchvision.models`."""
    try:
        return importlib.import_module("torchvision.models")
    except RuntimeError:  # no such operator: what has been imported of it is of no use
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in SCHEMAS:
        library.define(schema)
    LIBRARIES.append(library)
    return importlib.import_module("torchvision.models")


def names() -> list[str]:
    """All classifiers."""
    models = module()
    return list(models.list_models(module=models))


def parameters(name: str) -> int:
    """How many a classifier has."""
    return int(module().get_model_weights(name).DEFAULT.meta["num_params"])


def available_memory() -> int:
    """Bytes that can be taken without swapping; where the system does not say, as many as one likes."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return sys.maxsize


def build(name: str) -> tuple[nn.Module, Tensor]:
    """The model with random weights, and two images of the smallest size that it takes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = module().get_model(name, weights=None)
        size = 224 if name.startswith(FIXED) else 96 if name == "inception_v3" else 64
        return model.eval(), torch.randn(2, 3, size, size)
