"""OpenVINO, with its own choice of everything but the threads. hashcompile/bench_worker.py says what an engine is.

Every case is compiled for its own sizes: OpenVINO is at its best with static shapes.
"""

from typing import Any

import numpy as np
import openvino as ov


class Bound:
    """A request and the inputs of one case."""

    def __init__(self, request: ov.InferRequest, arrays: dict[str, Any]) -> None:
        self.request, self.arrays = request, arrays  # the request borrows the arrays
        for name, value in arrays.items():
            request.set_tensor(name, ov.Tensor(value, shared_memory=True))

    def __call__(self) -> None:
        self.request.infer(share_outputs=True)


def imports(request: dict[str, Any]) -> None:
    """OpenVINO is imported above."""


def load(request: dict[str, Any]) -> tuple[ov.Core, dict[str, Any]]:
    return ov.Core(), request


def bind(loaded: tuple[ov.Core, dict[str, Any]], case: dict[str, Any]) -> Any:
    core, request = loaded
    model = core.read_model(request["files"][0])
    with np.load(case["inputs"]) as given:
        arrays = {port.any_name: given[port.any_name] for port in model.inputs}
    model.reshape({name: list(value.shape) for name, value in arrays.items()})
    config = {"INFERENCE_NUM_THREADS": request["threads"], "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(model, "CPU", config)
    return Bound(compiled.create_infer_request(), arrays)
