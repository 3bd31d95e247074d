"""ONNX Runtime's MatMulNBits: uniform weights in blocks along K, int8 activations (accuracy_level 4)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from contest.peer import NotApplicableError, Peer, stock
from contest.subject import Subject

from .onnxruntime_fp32 import fp32_file


def prepare(subject: Subject, folder: Path, bits: int, block: int) -> list[str]:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    from onnxruntime.quantization.onnx_model import ONNXModel

    if subject.kind == "convolution":
        raise NotApplicableError("MatMulNBits has no convolution")
    model = ONNXModel(onnx.load(fp32_file(subject)))
    model.replace_gemm_with_matmul()
    quantizer = MatMulNBitsQuantizer(
        model.model, bits=bits, block_size=block, is_symmetric=True, accuracy_level=4
    )
    quantizer.process()
    quantizer.model.save_model_to_file(str(folder / "model.onnx"))
    if not any(node.op_type == "MatMulNBits" for node in onnx.load(folder / "model.onnx").graph.node):
        raise NotApplicableError("no matrix product in the graph became a MatMulNBits")
    return ["model.onnx"]


def peer(bits: int, block: int) -> Peer:
    what = f"MatMulNBits, {bits} bits, blocks of {block}, accuracy_level 4"
    return stock(f"ort {bits} bit g{block}", what, partial(prepare, bits=bits, block=block))


PEERS = (peer(4, 32), peer(4, 128), peer(8, 128))
