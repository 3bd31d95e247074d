"""What every test may ask for."""

import functools
import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def pytest_collection_finish() -> None:
    """What the imports made stays: the collector need not look through half a million objects again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def operators_listed_once() -> Iterator[None]:
    """For every file that it writes, torch's exporter reads the sources of 500 operators, makes their signatures, and
    asks the dispatcher for all that it has: 0.7 s of CPU, with the same result each time."""
    if "torch" not in sys.modules:  # the tests of the runtime alone
        yield
        return
    from onnxscript._framework_apis import torch_2_11 as apis
    from torch._export import utils
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apis, "get_torchlib_ops", functools.cache(apis.get_torchlib_ops))
        patch.setattr(
            ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib))
        )
        patch.setattr(utils, "_materialize_cpp_cia_ops", functools.cache(utils._materialize_cpp_cia_ops))
        yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the larger real data sets; the tests that want it say so when they skip."""
    if not (folder := os.environ.get("HASHCOMPILE_DATA")):
        pytest.skip("set HASHCOMPILE_DATA to the folder with the real data sets to run this test")
    path = Path(folder)
    assert path.is_dir(), f"HASHCOMPILE_DATA={folder} is not a folder"
    return path


@pytest.fixture(scope="session")
def write_mlp() -> Callable[..., Path]:
    """Writes an ONNX file as any other tool would: x (batch, 128) -> `layers` matrix products -> y."""
    size = 128

    def write(path: Path, layers: int = 2, kind: int = TensorProto.FLOAT, external: bool = False) -> Path:
        weight = np.eye(size, dtype=helper.tensor_dtype_to_np_dtype(kind))
        names = ["x", *(f"h{i}" for i in range(1, layers)), "y"]
        graph = helper.make_graph(
            [helper.make_node("MatMul", [names[i], "w"], [names[i + 1]]) for i in range(layers)],
            "mlp",
            [helper.make_tensor_value_info("x", kind, ["batch", size])],
            [helper.make_tensor_value_info("y", kind, ["batch", size])],
            [numpy_helper.from_array(weight, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.save(model, path, save_as_external_data=external, location="weights.bin", size_threshold=0)
        return path

    return write
