"""Sources of runtime/, compiled for an emulated GPU: objects in a folder, by name."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
RUNTIME = HERE.parents[1] / "runtime"
INCLUDES = [f"-I{folder}" for folder in (RUNTIME, RUNTIME / "include", RUNTIME / "kernels", HERE)]
TOOLKIT = f"-I{HERE / 'toolkit'}"  # what stands for CUDA's own headers
COMPILE = [
    os.environ.get("CXX", "c++"),
    "-std=c++17",
    "-O1",
    "-fPIC",
    "-Wall",
    "-Wno-unknown-pragmas",
    *INCLUDES,
]

KERNELS: Mapping[str, tuple[str, ...]] = {  # as runtime/cuda/problem.h names them
    **{f"{bits}_bits": ("cuda/codebook.cu", f"-DHC_BITS={bits}") for bits in range(1, 9)},
    "hashes": ("cuda/hashed.cu",),
}
API: Mapping[str, tuple[str, ...]] = {"api": ("cuda/api.cc",), "window": ("ops/window.cc",)}
HOST: Mapping[str, tuple[str, ...]] = {  # of TVM's libraries
    name.replace("/", "_"): (f"{name}.cc", TOOLKIT)
    for name in (
        *(f"nodes/{each}" for each in ("conv_form", "hashed_form", "host", "rows", "weight_form", "window")),
        *(f"tvm/{each}" for each in ("arguments", "model")),
        *(f"tvm/cuda/{each}" for each in ("call", "host", "kernels", "memory")),
    )
}
SOURCES = {**KERNELS, **API, **HOST}


def objects(folder: Path, names: Iterable[str]) -> list[Path]:
    """Of these sources, in `folder`; what is there already is taken as it is."""
    folder.mkdir(exist_ok=True)

    def compiled(name: str) -> Path:
        (source, *flags), made = SOURCES[name], folder / f"{name}.o"
        if not made.exists():
            command = [*COMPILE, *flags, "-x", "c++", "-c", str(RUNTIME / source), "-o", str(made)]
            subprocess.run(command, check=True)
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compiled, names))
