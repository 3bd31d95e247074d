"""Can TVM import a model? Asked of the model as it is, before minutes of compression."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from hashcompile.capture import Captured, capture
from hashcompile.core.graph import flat_copy
from hashcompile.core.method import Compute
from hashcompile.core.signature import Batch, Inputs
from hashcompile.lower.destination import tvm_destination
from hashcompile.lower.with_tvm import needed_by
from hashcompile.verify import Values, verify_library

CHECKED = 8  # samples of the example


def check_tvm(
    model: nn.Module,
    example_inputs: Inputs,
    dynamic_batch: bool = True,
    dynamic_shapes: Any = None,
    compute: Compute = "int8",
    target: Any = "cpu",
) -> None:
    """Raise ExportError for operators that TVM cannot import or compile, with the node and the user's source line of
    each, and VerificationError for those that it computes otherwise.

    The arguments are those of `compile`, and the target that of `export_tvm`; compression replaces weights, and brings
    no operators that TVM lacks. ConfigError tells that TVM is not installed, or that the target is none; CaptureError
    that the model cannot be captured at all.
    """
    captured = capture(model, example_inputs, dynamic_batch=dynamic_batch, dynamic_shapes=dynamic_shapes)
    check_captured(captured, compute, target)


def check_captured(captured: Captured, compute: Compute, target: Any) -> None:
    """The same for a model that is captured already.

    A library of the model as it is, which computes in float on this machine whatever the target, is made and compared
    with it on the example: it takes about as long as an export of the whole.
    """
    with needed_by("a TVM library"):
        from hashcompile.lower.tvm import lower
        from hashcompile.lower.tvm_library import build as write
        from hashcompile.lower.tvm_library import platform, runner, values_inside
    to = tvm_destination(target)
    taken = (captured.graph, captured.signature, captured.signature.first(captured.example, CHECKED))
    lowered, here = lower(*taken, compute, ranges={}, to=to), platform("cpu")
    if to.compute(compute) != "float" or not to.regions:
        lowered = lower(*taken, "float", ranges={})

    def inside(batches: Sequence[Batch]) -> list[Values]:
        return [*values_inside(lower(*taken, "float", ranges={}, expose=True), here, batches)]

    with TemporaryDirectory() as folder:
        path = Path(folder) / "check.so"
        write(lowered, here, path)
        verify_library(
            "the library of the model as it is",
            runner(path),
            inside,
            flat_copy(captured.graph),
            captured.signature,
            [taken[-1]],
        )
