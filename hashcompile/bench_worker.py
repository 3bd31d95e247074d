"""One ONNX file in a fresh process: load it, then run it when told to.

Run as a file, not imported: a process that holds PyTorch cannot measure how little a device needs. It speaks
JSON lines. `{files, library, threads, shapes, inputs}` is answered by what loading took, and each
later `{runs, warmup}` by that many latencies in nanoseconds, until stdin closes.
"""

import json
import os
import sys
import time
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


def resident_bytes() -> int:
    """Memory of this process that is in RAM now (where the system tells only the peak, the peak)."""
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget(path: str) -> None:
    """Ask the system to drop the file from its cache, so that the load is as cold as after a boot."""
    if hasattr(os, "posix_fadvise"):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def open_session(path: str, library: bool, threads: int) -> ort.InferenceSession:
    if library:
        import hashcompile_runtime

        session: ort.InferenceSession = hashcompile_runtime.session(path, threads=threads)
        return session
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def make_feeds(session: ort.InferenceSession, request: dict[str, Any]) -> Feeds:
    """The user's own arrays; else normal noise, and 1 for integers: a valid token, a full mask."""
    names = [node.name for node in session.get_inputs()]
    if request["inputs"]:
        with np.load(request["inputs"]) as given:
            return {name: given[name] for name in names}
    generator = np.random.default_rng(0)
    feeds: Feeds = {}
    for node in session.get_inputs():
        if node.type not in NUMPY:
            raise ValueError(f"input {node.name!r} is a {node.type}; only tensors of numbers can be made up")
        kind = np.dtype(NUMPY[node.type])
        shape = request["shapes"][node.name]
        noise = generator.standard_normal(shape) if kind.kind == "f" else np.ones(shape)
        feeds[node.name] = noise.astype(kind)
    return feeds


def load(request: dict[str, Any]) -> tuple[ort.InferenceSession, Feeds, dict[str, Any]]:
    if request["library"]:
        import hashcompile_runtime  # noqa: F401 - its Python face is not the cost of the model
    for path in request["files"]:
        forget(path)
    before = resident_bytes()
    start = time.perf_counter_ns()
    session = open_session(request["files"][0], request["library"], request["threads"])
    loaded = time.perf_counter_ns()
    feeds = make_feeds(session, request)
    first = time.perf_counter_ns()
    session.run(None, feeds)
    done = time.perf_counter_ns()
    facts = {
        "load_ms": (loaded - start) / 1e6,
        "first_ms": (done - first) / 1e6,
        "resident_bytes": resident_bytes() - before,
        "inputs": {name: list(value.shape) for name, value in feeds.items()},
    }
    return session, feeds, facts


def time_runs(session: ort.InferenceSession, feeds: Feeds, runs: int, warmup: int) -> list[int]:
    for _ in range(warmup):
        session.run(None, feeds)
    latencies = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        session.run(None, feeds)
        latencies.append(time.perf_counter_ns() - start)
    return latencies


def main() -> None:
    def reply(**answer: Any) -> None:
        print(json.dumps(answer), flush=True)

    try:
        session, feeds, facts = load(json.loads(sys.stdin.readline()))
        reply(**facts)
        for line in sys.stdin:
            reply(latencies=time_runs(session, feeds, **json.loads(line)))
    except Exception as error:  # whatever goes wrong is the parent's to report, in one line
        reply(error=str(error).strip() or type(error).__name__)


if __name__ == "__main__":
    main()
