"""The kernels of runtime/cuda, compiled for an emulated GPU: they run on any machine, on ordinary memory."""

import ctypes
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hashcompile_runtime.cuda import CudaKernels

HERE = Path(__file__).parent
RUNTIME = HERE.parents[1] / "runtime"
INCLUDES = [f"-I{folder}" for folder in (RUNTIME, RUNTIME / "include", RUNTIME / "kernels", HERE)]


class Emulated(CudaKernels):
    """The library with what only the emulation has."""

    def launches(self) -> int:
        """How many kernels were started so far."""
        self._library.emulated_launches.restype = ctypes.c_size_t
        return self._library.emulated_launches()


@pytest.fixture(scope="session")
def emulated(tmp_path_factory) -> Emulated:
    folder = tmp_path_factory.mktemp("emulated")
    compiler = [os.environ.get("CXX", "c++"), "-std=c++17", "-O1", "-fPIC", "-Wall", "-Wno-unknown-pragmas"]
    cuda = RUNTIME / "cuda"
    sources = {f"bits{bits}": (cuda / "codebook.cu", [f"-DHC_BITS={bits}"]) for bits in range(1, 9)}
    sources |= {"hashed": (cuda / "hashed.cu", []), "api": (cuda / "api.cc", [])}
    sources |= {"window": (RUNTIME / "ops" / "window.cc", [])}

    def compiled(name: str) -> str:
        source, flags = sources[name]
        object_file = str(folder / f"{name}.o")
        command = [*compiler, *INCLUDES, *flags, "-x", "c++", "-c", str(source), "-o", object_file]
        subprocess.run(command, check=True)
        return object_file

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, sources))
    library = folder / "libemulated.so"
    subprocess.run([*compiler, "-shared", *objects, "-o", str(library)], check=True)
    return Emulated(library)
