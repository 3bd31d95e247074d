"""The engine of `bench` for an ONNX file in ONNX Runtime. Loaded by bench_worker.py, which says what an engine defines.

Request: `{files, library, threads}`, the model's file first. Case: `{inputs}`, an .npz of arrays by name. Inputs and
outputs are bound once, so that a run is the model, and no conversion.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort


class Bound:
    """A session and the inputs of one case."""

    def __init__(self, session: ort.InferenceSession, feeds: dict[str, npt.NDArray[Any]]) -> None:
        self.session, self.feeds = session, feeds  # the binding borrows the arrays
        self.shapes = {name: list(value.shape) for name, value in feeds.items()}
        self.binding = session.io_binding()
        for name, value in feeds.items():
            self.binding.bind_cpu_input(name, value)
        for node in session.get_outputs():
            self.binding.bind_output(node.name)

    def __call__(self) -> None:
        self.session.run_with_iobinding(self.binding)


def imports(request: dict[str, Any]) -> None:
    import zipfile  # noqa: F401 - what reads an .npz is not the cost of the model

    if request["library"]:
        import hashcompile_runtime  # noqa: F401 - nor is its Python face


def load(request: dict[str, Any]) -> ort.InferenceSession:
    path, threads = request["files"][0], request["threads"]
    if request["library"]:
        import hashcompile_runtime

        session: ort.InferenceSession = hashcompile_runtime.session(path, threads=threads)
        return session
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def bind(session: ort.InferenceSession, case: dict[str, Any]) -> Bound:
    with np.load(case["inputs"]) as given:
        return Bound(session, {node.name: given[node.name] for node in session.get_inputs()})
