"""The engine of `bench`: an ONNX file in ONNX Runtime. Loaded by bench_worker.py, which says what an engine defines.

Request: `{files, library, threads}`, the model's file first. Case: `{inputs}`, an .npz of arrays by name, or `{shapes}`
of inputs to make up. Inputs and outputs are bound once, so that a run is the model, and no conversion.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

Feeds = dict[str, npt.NDArray[Any]]

NUMPY = {
    "tensor(float)": "f4",
    "tensor(double)": "f8",
    "tensor(float16)": "f2",
    "tensor(bool)": "?",
    **{f"tensor(int{bits})": f"i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"tensor(uint{bits})": f"u{bits // 8}" for bits in (8, 16, 32, 64)},
}


class Bound:
    """A session and the inputs of one case."""

    def __init__(self, session: ort.InferenceSession, feeds: Feeds) -> None:
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
    if request["library"]:
        import hashcompile_runtime  # noqa: F401 - its Python face is not the cost of the model


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
    return Bound(session, make_feeds(session, case))


def make_feeds(session: ort.InferenceSession, case: dict[str, Any]) -> Feeds:
    """The user's own arrays; else normal noise, and 1 for integers: a valid token, a full mask."""
    names = [node.name for node in session.get_inputs()]
    if case.get("inputs"):
        with np.load(case["inputs"]) as given:
            return {name: given[name] for name in names}
    generator = np.random.default_rng(0)
    feeds: Feeds = {}
    for node in session.get_inputs():
        if node.type not in NUMPY:
            raise ValueError(f"input {node.name!r} is a {node.type}; only tensors of numbers can be made up")
        kind = np.dtype(NUMPY[node.type])
        shape = case["shapes"][node.name]
        noise = generator.standard_normal(shape) if kind.kind == "f" else np.ones(shape)
        feeds[node.name] = noise.astype(kind)
    return feeds
