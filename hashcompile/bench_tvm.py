"""The engine of `bench` for a library in TVM's runtime. Loaded by bench_worker.py, which says what an engine defines.

Request: `{files, machine, names, threads}`: the library, what it is made for, its inputs in the order of main's
arguments. Case: `{inputs}`, an .npz of arrays by name.
"""

import os
import platform
import sys
from typing import Any

import numpy as np


class Bound:
    """The function `main` and the inputs of one case."""

    def __init__(self, main: Any, tensors: dict[str, Any]) -> None:
        self.main, self.tensors = main, list(tensors.values())
        self.shapes = {name: [int(size) for size in value.shape] for name, value in tensors.items()}

    def __call__(self) -> None:
        self.main(*self.tensors)


def imports(request: dict[str, Any]) -> None:
    if request["machine"] != platform.machine():
        raise ValueError(
            f"made for {request['machine']}, and this machine is {platform.machine()}: "
            "--on user@host measures where it belongs"
        )
    os.environ["TVM_NUM_THREADS"] = str(request["threads"])  # read once, when TVM makes its threads
    sys.modules["torch"] = None  # type: ignore[assignment] # TVM imports it where there is one; a device has none
    import zipfile  # noqa: F401 - what reads an .npz is not the cost of the model

    import tvm.runtime  # noqa: F401


def load(request: dict[str, Any]) -> tuple[Any, list[str]]:
    import tvm
    from tvm.runtime.vm import VirtualMachine

    library = tvm.runtime.load_module(os.path.abspath(request["files"][0]))
    return VirtualMachine(library, tvm.cpu())["main"], request["names"]


def bind(model: tuple[Any, list[str]], case: dict[str, Any]) -> Bound:
    import tvm

    main, names = model
    with np.load(case["inputs"]) as given:
        return Bound(main, {name: tvm.runtime.tensor(given[name]) for name in names})
