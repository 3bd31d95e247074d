"""session(): an onnxruntime.InferenceSession with our kernels registered."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import onnxruntime as ort

from ._errors import ModelError
from ._native import library_path


def session(
    model: str | os.PathLike[str] | bytes,
    threads: int | None = None,
    providers: Sequence[Any] | None = None,
    *,
    options: ort.SessionOptions | None = None,
    **kwargs: Any,
) -> ort.InferenceSession:
    """Load `model` (a path, or the bytes of one) with codebook ops on our kernels.

    threads: intra-op threads; None leaves ONNX Runtime's choice.
    providers: execution providers; None means the CPU.
    options: further session options; the library and `threads` are set in it, and one fusion that does not pay is
        added to those it disables. The same options serve any number of sessions.
    kwargs: passed to onnxruntime.InferenceSession.

    Raises FileNotFoundError for a missing file, ModelError for one that does not load, ValueError for
    `threads` below 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}; wanted 1 or more, or None for ONNX Runtime's choice")
    source = bytes(model) if isinstance(model, bytes | bytearray | memoryview) else os.fspath(model)
    name = f"{len(source)} bytes" if isinstance(source, bytes) else source
    if source is name and not os.path.isfile(name):
        raise FileNotFoundError(f"no model file at {name!r}")
    options = options or ort.SessionOptions()
    _prepare(options)
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return ort.InferenceSession(source, options, providers=list(providers or _CPU), **kwargs)
    except _NOT_A_MODEL as error:
        raise ModelError(f"{name} is not an ONNX model: {_reason(error)}") from error
    except _REFUSED as error:
        raise ModelError(f"{name} does not load: {_reason(error)}") from error


def _prepare(options: ort.SessionOptions) -> None:
    """Set in `options` what every session of ours needs, once: ONNX Runtime refuses a library that is there twice."""
    if _entry(options, _PREPARED):
        return
    options.register_custom_ops_library(str(library_path()))
    disabled = _entry(options, _DISABLED).split(";")
    options.add_session_config_entry(_DISABLED, ";".join(filter(None, [*disabled, _SLOWER_FUSED])))
    options.add_session_config_entry(_PREPARED, "1")


def _entry(options: ort.SessionOptions, key: str) -> str:
    try:
        return str(options.get_session_config_entry(key))
    except RuntimeError:  # it has none of that name
        return ""


_PREPARED = "hashcompile.prepared"  # ONNX Runtime ignores keys that it does not know
_DISABLED = "optimization.disable_specified_optimizers"
# ONNX Runtime's fused kernel of residual add and layer norm takes several times as long as the two it replaces.
_SLOWER_FUSED = "SkipLayerNormFusion"
_CPU = ["CPUExecutionProvider"]
_STATES = ort.capi.onnxruntime_pybind11_state
_NOT_A_MODEL = (_STATES.InvalidProtobuf,)
_REFUSED = tuple(
    getattr(_STATES, name)
    for name in ("Fail", "InvalidArgument", "InvalidGraph", "NotImplemented", "RuntimeException")
)


def _reason(error: Exception) -> str:
    """ONNX Runtime's sentence without its code prefix."""
    return str(error).removeprefix("[ONNXRuntimeError] : ")
