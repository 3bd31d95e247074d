"""Our linear op against ONNX Runtime's own, one node a model: a table of medians, and ratios to ours.

    python benchmarks/kernels.py [--json FILE] [--threads 1 2] [--quick]

Every peer runs in an ONNX Runtime session, inputs and outputs bound, so each time includes the few microseconds of a
run (the `floor` column: a model that only adds one to a number). Peers take turns, round after round; a figure is the
median of the rounds, a ratio the median of the ratios within a round, so a slow moment of the machine hits both
sides. Weights are random: no time here depends on their values.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from rich.console import Console
from rich.table import Table

import hashcompile_runtime as hr
from hashcompile.core import packing

SHAPES = [(384, 384), (1536, 384), (1024, 1024), (4096, 4096)]  # N x K
ROWS = [1, 8, 128]  # M
OURS = "ours int8"
ROUND_SECONDS = 0.02  # of one peer, in one round


def one_node(
    op: str,
    tensors: dict[str, np.ndarray],
    N: int,
    K: int,
    domain: str = "",
    attributes: dict[str, int] | None = None,
) -> ModelProto:
    node = helper.make_node(op, ["X", *tensors], ["Y"], domain=domain, **(attributes or {}))
    graph = helper.make_graph(
        [node],
        op,
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["M", K])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["M", N])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 18)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def codebook(compute: int) -> Callable[[int, int], ModelProto]:
    """4 bits, one table: our op."""

    def build(N: int, K: int) -> ModelProto:
        rng = np.random.default_rng(0)
        tensors = {
            "codes": packing.pack(rng.integers(0, 16, (N, K), np.uint8), 4),
            "codebook": rng.normal(size=(1, 16)).astype(np.float32),
            "scale": np.ones(N, np.float32),
        }
        attributes = {"bits": 4, "in_features": K, "group_rows": 0, "compute": compute}
        return one_node("CodebookLinear", tensors, N, K, "com.hashcompile", attributes)

    return build


def fp32(N: int, K: int) -> ModelProto:
    return one_node("MatMul", {"W": np.random.default_rng(0).normal(size=(K, N)).astype(np.float32)}, N, K)


def dynamic_int8(N: int, K: int) -> ModelProto:
    """What `quantize_dynamic` makes of it: one scale a column, activations quantised at run time."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        quantize_dynamic(fp32(N, K), target, per_channel=True, weight_type=QuantType.QInt8)
        model = ModelProto()
        model.ParseFromString(target.read_bytes())
        return model


def nbits(block: int) -> Callable[[int, int], ModelProto]:
    """MatMulNBits, uniform 4 bits, int8 activations."""

    def build(N: int, K: int) -> ModelProto:
        rng = np.random.default_rng(0)
        tensors = {
            "B": rng.integers(0, 256, (N, K // block, block // 2), np.uint8),
            "scales": np.full(N * K // block, 0.01, np.float32),
        }
        attributes = {"bits": 4, "block_size": block, "accuracy_level": 4, "N": N, "K": K}
        return one_node("MatMulNBits", tensors, N, K, "com.microsoft", attributes)

    return build


def floor(N: int, K: int) -> ModelProto:
    return one_node("Add", {"one": np.ones((1, 1), np.float32)}, 1, 1)


PEERS: dict[str, Callable[[int, int], ModelProto]] = {
    OURS: codebook(compute=1),
    "ours fp32": codebook(compute=0),
    "fp32": fp32,
    "int8 dynamic": dynamic_int8,
    "4 bit g128": nbits(128),
    "4 bit g32": nbits(32),
    "floor": floor,
}


class Case(NamedTuple):
    N: int
    K: int
    M: int
    threads: int
    microseconds: dict[str, float]  # median of each peer
    ratio: dict[str, float]  # peer's time over ours


def runner(model: ModelProto, threads: int, M: int) -> Callable[[], None]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # The pools of the other peers' sessions must not spin while one is measured.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = hr.session(model.SerializeToString(), threads, options=options)
    K = session.get_inputs()[0].shape[1]
    binding = session.io_binding()
    rows = M if K > 1 else 1
    binding.bind_cpu_input("X", np.random.default_rng(M).normal(size=(rows, K)).astype(np.float32))
    binding.bind_output("Y")
    return lambda: session.run_with_iobinding(binding)


def seconds(run: Callable[[], None], count: int) -> float:
    begin = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - begin) / count


def measure(N: int, K: int, M: int, threads: int, models: dict[str, ModelProto], rounds: int) -> Case:
    runs = {name: runner(model, threads, M) for name, model in models.items()}
    counts = {}
    for name, run in runs.items():
        run()  # warm
        counts[name] = max(1, int(ROUND_SECONDS / seconds(run, 3)))
    times = [{name: seconds(run, counts[name]) for name, run in runs.items()} for _ in range(rounds)]
    median = {name: statistics.median(t[name] for t in times) for name in runs}
    ratio = {name: statistics.median(t[name] / t[OURS] for t in times) for name in runs}
    return Case(N, K, M, threads, {name: 1e6 * value for name, value in median.items()}, ratio)


def show(cases: list[Case]) -> None:
    table = Table(title="microseconds (times ours int8)")
    for column in ("N x K", "M", "threads", *PEERS):
        table.add_column(column, justify="right")
    for case in cases:
        cells = [f"{case.microseconds[OURS]:.1f}"]
        cells += [f"{case.microseconds[name]:.1f} ({case.ratio[name]:.2f})" for name in PEERS if name != OURS]
        table.add_row(f"{case.N} x {case.K}", str(case.M), str(case.threads), *cells)
    Console(width=160).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="the smallest shape only, three rounds")
    options = parser.parse_args()
    shapes, rounds = (SHAPES[:1], 3) if options.quick else (SHAPES, options.rounds)
    cases = []
    for N, K in shapes:
        models = {name: build(N, K) for name, build in PEERS.items()}
        for threads in options.threads:
            cases += [measure(N, K, M, threads, models, rounds) for M in ROWS]
    show(cases)
    if options.json:
        selected = [kernel.name for kernel in hr.kernels() if kernel.selected]
        facts = {"cpu": platform.processor(), "onnxruntime": ort.__version__, "kernels": selected}
        options.json.write_text(json.dumps(facts | {"cases": [case._asdict() for case in cases]}, indent=1))


if __name__ == "__main__":
    main()
