"""One contender in a fresh process: load it, then run it when told to.

Run as a file, not imported: a process that holds PyTorch cannot measure how little a device needs. It speaks
JSON lines. The first, `{engine, request, cases}`, names a Python file that defines

    imports(request)               what the contender needs that is no part of its model
    load(request) -> model         timed, and counted as memory
    bind(model, case) -> run       `run()` is one inference on the inputs of a case; `run.shapes`, if it is there,
                                   is a dict of their shapes

and is answered by `{load_ms, cases: [{first_ms, resident_bytes, inputs}]}`: memory is what loading and the first runs
so far added to the process. Each later `{case, runs, seconds, warmup}` is answered by that many latencies in
nanoseconds, and more until the seconds are over; so on until stdin closes.
"""

import importlib.util
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

Run = Callable[[], object]

PR_SET_PDEATHSIG = 1  # of linux/prctl.h

DISTRIBUTIONS = {  # what brings a module that an engine may lack
    "hashcompile_runtime": "hashcompile-runtime",
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "tvm": "'apache-tvm>=0.27,<0.28'",
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


def end_with_parent() -> None:
    """A worker is stopped when it is not its turn: one whose parent was killed would be so for good."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def read_engine(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("engine", path)
    assert spec is not None and spec.loader is not None
    engine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(engine)
    return engine


def load(
    engine: ModuleType, request: dict[str, Any], cases: list[dict[str, Any]]
) -> tuple[list[Run], dict[str, Any]]:
    engine.imports(request)
    for path in request.get("files", ()):
        forget(path)
    before = resident_bytes()
    start = time.perf_counter_ns()
    model = engine.load(request)
    facts: dict[str, Any] = {"load_ms": (time.perf_counter_ns() - start) / 1e6, "cases": []}
    runs = []
    for case in cases:
        run = engine.bind(model, case)
        start = time.perf_counter_ns()
        run()
        took = (time.perf_counter_ns() - start) / 1e6
        grown = resident_bytes() - before
        inputs = getattr(run, "shapes", {})
        facts["cases"].append({"first_ms": took, "resident_bytes": grown, "inputs": inputs})
        runs.append(run)
    return runs, facts


def time_runs(run: Run, runs: int, seconds: float, warmup: int) -> list[int]:
    for _ in range(warmup):
        run()
    latencies: list[int] = []
    begin = time.perf_counter_ns()
    end = begin + int(seconds * 1e9)
    while len(latencies) < runs or begin < end:
        begin = time.perf_counter_ns()
        run()
        latencies.append(time.perf_counter_ns() - begin)
    return latencies


def main() -> None:
    end_with_parent()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not pass for an answer

    def reply(**answer: Any) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    try:
        first = json.loads(sys.stdin.readline())
        runs, facts = load(read_engine(first["engine"]), first["request"], first["cases"])
        reply(**facts)
        for line in sys.stdin:
            turn = json.loads(line)
            reply(latencies=time_runs(runs[turn.pop("case")], **turn))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        missing = DISTRIBUTIONS.get(missing, missing)
        reply(
            error=f"{sys.executable} of {platform.node()} has no module {error.name!r}: pip install {missing} there"
        )
    except Exception as error:  # whatever goes wrong is the parent's to report, in one line
        reply(error=str(error).strip() or type(error).__name__)


if __name__ == "__main__":
    main()
