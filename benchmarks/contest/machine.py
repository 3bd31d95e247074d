"""The machine and the software that figures hold for."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("hashcompile", "hashcompile-runtime", "onnxruntime", "openvino", "nncf", "torch", "numpy")


def facts() -> dict[str, object]:
    """For the JSON: CPU, cores, load before the run, and a version, or None, of every package that takes part."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def cpu_name() -> str:
    """The processor's own name where Linux tells it, else its architecture."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return names[0].split(":")[1].strip() if names else platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
