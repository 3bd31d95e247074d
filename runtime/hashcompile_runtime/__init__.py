"""Run models with codebook weights: ONNX Runtime with our kernels registered. No torch."""

from ._errors import ModelError, NativeError, RuntimeLibraryError
from ._native import KernelInfo, cpu_features, kernels, library_path, source_path, tvm_archive_path
from ._session import session

__all__ = [
    "KernelInfo",
    "ModelError",
    "NativeError",
    "RuntimeLibraryError",
    "cpu_features",
    "kernels",
    "library_path",
    "session",
    "source_path",
    "tvm_archive_path",
]
