"""The fp32 file as ONNX Runtime's quantisers want it: no Gemm, batch norms folded, constants gone."""

from __future__ import annotations

from pathlib import Path

from contest.subject import Subject

from .onnxruntime_fp32 import fp32_file


def clean_file(subject: Subject, folder: Path) -> Path:
    """Written into `folder`; the caller removes it."""
    import onnx
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = ONNXModel(onnx.load(fp32_file(subject)))
    del model.model.graph.value_info[
        :
    ]  # transposing a weight contradicts what the exporter noted of its shape
    model.replace_gemm_with_matmul()
    plain, target = folder / "plain.onnx", folder / "clean.onnx"
    onnx.save(model.model, plain)
    quant_pre_process(plain, target, skip_symbolic_shape=True)
    plain.unlink()
    return target
