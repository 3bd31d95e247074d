"""ONNX files: the fp32 baseline as PyTorch exports it, and a way to run any file on tensors."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime as ort
import torch
from torch import Tensor, nn

Inputs = tuple[Tensor, ...] | dict[str, Tensor]


def export_fp32(model: nn.Module, example: Inputs, dynamic_shapes: Any, path: Path) -> Path:
    """What a user has without us: torch.export, then PyTorch's own ONNX exporter, weights inside the file."""
    args, kwargs = ((), example) if isinstance(example, dict) else (example, {})
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, args, kwargs, dynamic_shapes=dynamic_shapes, strict=False)
        exported = torch.onnx.export(program, (), dynamo=True, verbose=False)
    assert exported is not None
    for node in exported.model.graph:
        node.metadata_props.clear()  # stack traces: half a megabyte that is no part of the model
    exported.save(path, external_data=False)
    return path


def stock(path: Path, threads: int) -> ort.InferenceSession:
    """ONNX Runtime with its default optimisations, and nothing of ours."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def forward(session: ort.InferenceSession) -> Callable[..., Tensor]:
    """The session as a function: the model's inputs, by position or by name, to its only output."""
    names = [node.name for node in session.get_inputs()]

    def run(*args: Tensor, **kwargs: Tensor) -> Tensor:
        named = dict(zip(names, args, strict=False)) | kwargs
        output = session.run(None, {name: value.numpy() for name, value in named.items()})[0]
        return torch.from_numpy(output)

    return run
