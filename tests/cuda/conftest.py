"""The kernels of runtime/cuda, compiled for an emulated GPU: they run on any machine, on ordinary memory."""

import ctypes
import subprocess
from pathlib import Path

import pytest

from hashcompile_runtime.cuda import CudaKernels
from tests.cuda.emulated import API, COMPILE, KERNELS, objects


class Emulated(CudaKernels):
    """The library with what only the emulation has."""

    def launches(self) -> int:
        """How many kernels were started so far."""
        self._library.emulated_launches.restype = ctypes.c_size_t
        return self._library.emulated_launches()


@pytest.fixture(scope="session")
def emulated_folder(tmp_path_factory) -> Path:
    """Where the session's objects lie."""
    return tmp_path_factory.mktemp("emulated")


@pytest.fixture(scope="session")
def emulated(emulated_folder) -> Emulated:
    library = emulated_folder / "libemulated.so"
    made = objects(emulated_folder, [*KERNELS, *API])
    subprocess.run([*COMPILE, "-shared", *map(str, made), "-o", str(library)], check=True)
    return Emulated(library)
