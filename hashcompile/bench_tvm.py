"""The engine of `bench` for a library in TVM's runtime. Loaded by bench_worker.py, which says what an engine defines.

Request: `{files, machine, cuda, names, threads}`: the library, what it is made for, whether it computes on a GPU, its
inputs in the order of main's arguments. Case: `{inputs}`, an .npz of arrays by name.
"""

import os
import platform
import sys
from typing import Any

import numpy as np


class Bound:
    """The function `main` and the inputs of one case, which lie on its device."""

    def __init__(self, main: Any, device: Any, tensors: dict[str, Any]) -> None:
        self.main, self.tensors = main, list(tensors.values())
        self.device = (
            device if "cuda" in str(device) else None
        )  # a GPU is told only what to do, and does it later
        self.shapes = {name: [int(size) for size in value.shape] for name, value in tensors.items()}

    def __call__(self) -> None:
        self.main(*self.tensors)
        if self.device is not None:
            self.device.sync()


def imports(request: dict[str, Any]) -> None:
    if request["machine"] != platform.machine():
        raise ValueError(
            f"made for {request['machine']}, and this machine is {platform.machine()}: "
            "--on user@host measures where it belongs"
        )
    os.environ["TVM_NUM_THREADS"] = str(request["threads"])  # read once, when TVM makes its threads
    sys.modules["torch"] = None  # type: ignore[assignment] # TVM imports it where there is one; a device has none
    import zipfile  # noqa: F401 - what reads an .npz is not the cost of the model

    import tvm.runtime

    if request["cuda"] and not tvm.cuda().exist:
        raise ValueError(
            "made for CUDA, and TVM finds no GPU here, or no libcudart.so.13, which its own runtime for CUDA needs: "
            "--on user@host measures where there are both"
        )


def load(request: dict[str, Any]) -> tuple[Any, Any, list[str]]:
    import tvm
    from tvm.runtime.vm import VirtualMachine

    library = tvm.runtime.load_module(os.path.abspath(request["files"][0]))
    device = tvm.cuda() if request["cuda"] else tvm.cpu()
    return VirtualMachine(library, device)["main"], device, request["names"]


def bind(model: tuple[Any, Any, list[str]], case: dict[str, Any]) -> Bound:
    import tvm

    main, device, names = model
    with np.load(case["inputs"]) as given:
        return Bound(main, device, {name: tvm.runtime.tensor(given[name], device) for name in names})
